"""Lines of a text file, whatever ends them."""

from __future__ import annotations

import re

# Also "\r\r\n", which a file has that was converted twice. Not what `splitlines` splits at: a text
# may hold U+2028 and the like.
_END = r"\r*\n|\r"
_LINE = re.compile(rf"[^\r\n]*(?:{_END})|[^\r\n]+")


def split_lines(text: str) -> list[str]:
    """The lines of a text without what ends them; the last is empty after an end."""
    return re.split(_END, text)


def whole_lines(text: str) -> list[str]:
    """The lines of a text, each with what ends it."""
    return _LINE.findall(text)
