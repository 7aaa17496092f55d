"""Distil, convert, verify and measure Transformer encoders for phones and other small devices."""

import os

__version__ = "0.1.0"

# Read when ONNX Runtime is imported. It would send what models it loads, and leave files in TMPDIR.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
