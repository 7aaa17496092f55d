"""Core ML: an ML program with flexible or enumerated lengths, and narrower copies of it."""

from converters.coreml.converter import CoremlConverter, CoremlExport

__all__ = ["CoremlConverter", "CoremlExport"]
