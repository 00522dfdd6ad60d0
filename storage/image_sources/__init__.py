"""Readers of image data sets, one kind of source per file."""
