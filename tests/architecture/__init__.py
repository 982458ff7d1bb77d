"""The architecture, as rules that a test applies to the source and that another test proves able to fail."""
