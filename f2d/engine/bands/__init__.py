"""Restore images that do not fit into memory as a whole, in bands of rows."""
