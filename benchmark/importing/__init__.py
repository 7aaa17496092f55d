"""Results of other programs as rows, recognised by what is in the file.

They show beside one's own figures and never count as valid: what went in, what else the machine
did and whether the model answered rightly is not in those files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark.contradictions import contradiction
from benchmark.importing import litert, mlperf, optimum
from benchmark.importing.base import Foreign
from benchmark.schema import Row

# In a folder of results, the file to read: the first that is there.
KNOWN_FILES = (*optimum.FILES, *mlperf.FILES)

# Each gives the rows of a file, or None when the file is not its own.
_READERS: tuple[Callable[[Foreign], tuple[Row, ...] | None], ...] = (
    optimum.read,
    mlperf.read_mobile,
    mlperf.read_detail,
    mlperf.read_summary,
    litert.read_json,
    litert.read_log,
    litert.read_result,
    litert.read_profile,
)


def import_rows(path: Path) -> tuple[Row, ...] | None:
    """The rows of another program's file; None when no reader knows it.

    Raises DataError for a file that is recognised and broken, OSError when it cannot be read.
    """
    foreign = Foreign(path, path.read_bytes())
    for reader in _READERS:
        try:
            rows = reader(foreign)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            raise foreign.broken("its values are not those that its program writes") from None
        if rows is not None:
            _refuse_contradictions(foreign, rows)
            return rows
    return None


def _refuse_contradictions(foreign: Foreign, rows: Sequence[Row]) -> None:
    for row in rows:
        wrong = contradiction(row)
        if wrong is not None:
            raise foreign.broken(wrong)
