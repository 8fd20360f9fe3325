"""A merged model in the formats of other runtimes: GGUF for llama.cpp, compressed-tensors for vLLM and transformers."""
