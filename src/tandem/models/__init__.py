"""Find a model, read its files, describe its encoder: everything about a model that no backend is needed for."""
