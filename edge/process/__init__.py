"""Child processes and their protocol, memory and the processor."""
