"""The installed program and its roles."""
