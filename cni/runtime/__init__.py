"""The runtime's side of CNI: configurations on disk, chains of plugins, the result cache.

It does what libcni does for programs in Go, and keeps its files and its messages.
"""
