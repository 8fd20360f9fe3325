"""What an experiment leaves: cells, benchmarks, records, and where each number is from."""
