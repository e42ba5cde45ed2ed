"""Helpers: processes of plugins that outlive a call, and how a plugin reaches its own."""
