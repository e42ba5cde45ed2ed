"""The command `pycni`: a runtime by hand (cnitool's contract) and a view of what is there."""
