"""From a verified bundle to the single file that a mobile library takes as it is."""

from converters.packs.config import KINDS, PackConfig
from converters.packs.pack import pack
from converters.packs.report import PackReport, TextDifference

__all__ = ["KINDS", "PackConfig", "PackReport", "TextDifference", "pack"]
