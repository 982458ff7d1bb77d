"""The HTTP server: three APIs over one engine."""
