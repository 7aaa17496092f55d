"""The interpreter of Core ML programs: what a Mac would run, in NumPy."""
