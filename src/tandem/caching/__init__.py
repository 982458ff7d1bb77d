"""Caches in front of the model: nothing is computed twice."""
