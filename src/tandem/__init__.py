"""Tandem: a self-hosted text-embedding service."""

__version__ = "0.1.0"
