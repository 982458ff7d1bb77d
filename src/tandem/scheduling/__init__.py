"""The scheduler: a core without I/O, and the loop that runs it."""
