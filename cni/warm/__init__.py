"""Warm start: a server that has imported everything, and forked workers that run plugins for launchers.

`connection` accepts launchers, `worker` serves one call after another, `worker_pool` forks and replaces
workers, `server` runs the pool. This package makes no decisions for a plugin: a worker calls the same
entry as a new process.
"""
