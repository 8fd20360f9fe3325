"""Data sets prepared: the embedded world, and local or hub sources brought into three forms of JSONL."""
