"""Promises about error rates: exact bounds, thresholds that keep them, audits that watch them."""
