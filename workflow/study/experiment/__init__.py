"""The experiment file: its schema, its checks, the grid of cells, and what they will need."""
