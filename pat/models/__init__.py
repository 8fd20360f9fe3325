"""Stock models in memory: their widths and sizes, and how they are run. Nothing here prunes."""
