"""What tests share: tiny models, worlds and cells, commands as they are called, copies of the workflow. Holds no test."""
