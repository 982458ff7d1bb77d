"""Workers: one device, one backend."""
