"""Defaults that help shows of options which leave theirs to a command's configuration.

Configurations need libraries that help must not wait for; a test holds these equal to them.
"""

from __future__ import annotations

DEFAULTS: dict[str, dict[str, str]] = {
    "distill": {"recipe": "kd-hidden", "seed": "0"},
    "convert": {
        "format": "onnx, tflite, coreml",
        "shapes": "flexible",
    },
    "benchmark": {
        "device": "local",
        "threads": "1",
        "batch": "1",
        "padding": "fixed",
        "preset": "quick",
        "seed": "0",
        "remote_python": "python3",
        "timeout": "600",
    },
    "pack": {"precision": "int8"},
    "compare": {"margin": "0.02"},
    "inspect": {"top": "10"},
    "demo": {"train_rows": "4000"},
}
