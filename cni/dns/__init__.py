"""Names of containers: what plugins publish, and the server that answers for it.

`records` and `client` are for plugins. `server` is the helper's part: only it imports dnspython.
"""
