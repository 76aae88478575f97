"""Readers of data sets, and the bundled scenes."""
