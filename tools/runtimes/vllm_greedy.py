"""Greedy tokens of a model folder in vLLM: a job on standard input, {folder, prompt, count, dtype, ends, …}; {tokens} on the last line.

Runs with the interpreter of an environment that has vLLM, so it imports nothing of this project. A process opens one model: vLLM does not
give back all that it holds.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    """Answer the job on standard input."""
    from vllm import LLM, SamplingParams, TokensPrompt  # type: ignore[import-not-found]  # of another environment

    job = json.load(sys.stdin)
    model = LLM(
        job["folder"], dtype=job["dtype"], model_impl=job["model_impl"], max_model_len=128, max_num_seqs=1, enforce_eager=True,
        skip_tokenizer_init=True, seed=0,
    )  # fmt: skip
    choices = SamplingParams(temperature=0.0, max_tokens=job["count"], detokenize=False, ignore_eos=False, stop_token_ids=job["ends"])
    found = model.generate(TokensPrompt(prompt_token_ids=job["prompt"]), choices, use_tqdm=False)
    sys.stdout.write("\n" + json.dumps({"tokens": list(found[0].outputs[0].token_ids)}) + "\n")


if __name__ == "__main__":
    main()
