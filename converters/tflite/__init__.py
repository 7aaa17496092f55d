"""From a checkpoint to .tflite files."""

from converters.tflite.converter import TfliteConverter, TfliteExport

__all__ = ["TfliteConverter", "TfliteExport"]
