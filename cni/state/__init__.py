"""Files, locks, what belongs to one boot, and the installed executables."""
