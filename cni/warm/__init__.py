"""Warm start: a server that has everything imported, and workers that are a plugin when a launcher asks.

`door` is where a worker meets launchers, `worker` is one call after another, `server` keeps workers
waiting. Nothing here decides what a plugin does: a worker runs the same entry as a process of its own.
"""
