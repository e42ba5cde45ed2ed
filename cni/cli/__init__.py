"""The command `pycni`: it calls plugins as a runtime does (cnitool's contract), and shows attachments."""
