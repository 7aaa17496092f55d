"""Encoders that embed texts: sentence-transformers' folders, and their model."""
