"""What `edge pack` is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from edge.config import Config
from edge.errors import ConfigError, unknown_name
from edge.precision import Precision, parse_precision
from edge.storage import follow

# kind -> the suffix of its file.
KINDS = {"mediapipe": ".tflite", "ort-text": ".onnx"}


class PackConfig(Config):
    """One pack.

    kind: "mediapipe", a .tflite for MediaPipe Tasks' TextClassifier; "ort-text", an .onnx with the
    tokenizer inside for ONNX Runtime with onnxruntime-extensions.
    output: the file to write; a file there is replaced.
    precision: of the bundle's artifact to pack.
    seq_length: mediapipe: the fixed length, one of the artifact's; by default its longest.
    ort-text: where texts are cut; by default where the bundle cuts them.
    pair: whether the file takes two texts; by default if the bundle was made with pairs of texts.
    """

    kind: str
    bundle: Path
    output: Path
    precision: Precision = Precision.INT8
    seq_length: int | None = Field(default=None, ge=4)
    pair: bool | None = None

    @field_validator("kind", mode="after")
    @classmethod
    def _known_kind(cls, name: str) -> str:
        if name not in KINDS:
            raise unknown_name("pack", name, KINDS)
        return name

    @field_validator("precision", mode="before")
    @classmethod
    def _known_precision(cls, name: Any) -> Precision:
        return parse_precision(name)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        suffix = KINDS[self.kind]
        if self.output.suffix != suffix:
            raise ConfigError(f"{self.kind} writes a {suffix} file: name one, not {self.output}")
        if follow(self.output).is_relative_to(follow(self.bundle)):
            raise ConfigError(
                f"{self.output} is inside the bundle, which would no longer match its manifest: "
                "choose another --output"
            )
        return self
