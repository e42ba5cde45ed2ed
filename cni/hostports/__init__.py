"""Host ports: the ledger of their holders, the import of the Go plugins' rules, listening processes."""
