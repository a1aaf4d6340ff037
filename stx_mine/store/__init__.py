"""The run directory: artifacts, atomic files, the lock, tables that several stages read."""
