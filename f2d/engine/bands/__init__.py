"""Restoration of images that do not fit into memory whole, band of rows by band of rows."""
