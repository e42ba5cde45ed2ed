"""The runtime's side of CNI: configurations on disk, chains of plugins, the result cache.

It is what libcni is for Go programs, with the same files and messages.
"""
