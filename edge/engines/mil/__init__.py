"""An interpreter of Core ML programs in numpy, for machines without Core ML."""
