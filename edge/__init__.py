"""Distill, convert, verify and measure Transformer encoders for phones and other small devices."""

__version__ = "0.1.0"
