"""The installed program: what it is when it is started."""
