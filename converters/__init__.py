"""Turn a Transformers checkpoint into verified ONNX, TFLite and Core ML artifacts."""

from converters.config import ConvertConfig
from converters.convert import convert

__all__ = ["ConvertConfig", "convert"]
