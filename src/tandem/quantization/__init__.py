"""Codecs of rows by name."""
