"""Tables laid out from cells and written."""
