"""Results of other programs as rows; the program is recognized by the file's content.

They are shown beside the results of this program and never count as valid: those files do not tell
the inputs, the load of the machine, nor whether the outputs were correct.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark.contradictions import contradiction
from benchmark.importing import litert, mlperf, optimum
from benchmark.importing.base import ResultFile
from benchmark.schema import Row

# In a folder of results, the file to read: the first that is there.
KNOWN_FILES = (*optimum.FILES, *mlperf.FILES)

# Each returns the rows of a file, or None if the file is of another program.
_READERS: tuple[Callable[[ResultFile], tuple[Row, ...] | None], ...] = (
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
    """Read the rows of another program's file; None if no reader recognizes it.

    Raises DataError for a file that is recognized and broken, OSError if it cannot be read.
    """
    file = ResultFile(path, path.read_bytes())
    for reader in _READERS:
        try:
            rows = reader(file)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            raise file.broken("its values are not those that its program writes") from None
        if rows is not None:
            _refuse_contradictions(file, rows)
            return rows
    return None


def _refuse_contradictions(file: ResultFile, rows: Sequence[Row]) -> None:
    for row in rows:
        wrong = contradiction(row)
        if wrong is not None:
            raise file.broken(wrong)
