"""Vector indexes by name."""
