"""The parts of GC, STATUS and repair that all plugins share."""
