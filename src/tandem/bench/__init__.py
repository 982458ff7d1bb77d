"""Benchmarks: Tandem beside its own backend and peers, in one run. A wrong vector fails it, slowness never does."""
