"""Phones over adb: an app of the user, or the tools of the runtimes."""
