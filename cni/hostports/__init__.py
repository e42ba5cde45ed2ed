"""Host ports: the ledger of holders, the import of Go's rules, the processes that listen."""
