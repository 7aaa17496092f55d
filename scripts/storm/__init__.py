"""Storms: what attack and use can do to a command, tried many times over. Not part of CI."""
