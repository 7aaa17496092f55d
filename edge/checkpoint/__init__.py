"""Transformers folders: opened, checked, loaded and saved."""
