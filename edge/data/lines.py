"""Splitting of text files into lines, with any line ending."""

from __future__ import annotations

import re

# Includes "\r\r\n", the result of converting a file twice. `splitlines` is not used, because it
# also splits at U+2028 and the like, which a text may contain.
_END = r"\r*\n|\r"
_LINE = re.compile(rf"[^\r\n]*(?:{_END})|[^\r\n]+")


def split_lines(text: str) -> list[str]:
    """Return the lines of a text without line endings; the last is empty after a line ending."""
    return re.split(_END, text)


def whole_lines(text: str) -> list[str]:
    """Return the lines of a text with their line endings."""
    return _LINE.findall(text)
