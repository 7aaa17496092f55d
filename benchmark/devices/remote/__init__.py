"""A Python elsewhere: over ssh, or under QEMU."""
