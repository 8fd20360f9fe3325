"""Texts, instructions and questions: read, checked and turned into tokens."""
