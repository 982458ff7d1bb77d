"""The semantic cache as a service: payloads by meaning."""
