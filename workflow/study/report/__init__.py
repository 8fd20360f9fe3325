"""What is said of an experiment beside its tables: the summary, the kept reference, tables in documents."""
