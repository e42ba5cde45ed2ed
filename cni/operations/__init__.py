"""What GC, STATUS and repair have in common for all plugins."""
