"""The report: one page that opens from disk, its Markdown twin, and the rows behind both."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from benchmark.report.csv import dump_csv
from benchmark.report.model import Report
from benchmark.report.view import view
from benchmark.storing import ROWS_FILE, dump_rows
from edge.storage import write_together

HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"
CSV_FILE = "rows.csv"
_TEMPLATES = Path(__file__).parent / "templates"


def is_report(folder: Path) -> bool:
    """Whether a folder holds a report, which a new one may replace."""
    return (folder / ROWS_FILE).is_file()


def write_report(folder: Path, report: Report) -> None:
    """Write `report.html`, `report.md`, `rows.csv` and `rows.jsonl` into `folder`.

    They change together, in one step where the system can. Other files there are left alone.
    Raises StorageError when the folder cannot be written, UserError while another command does.
    """
    # Everything is rendered before anything is written: a failure changes nothing.
    write_together(folder, render(report))


def render(report: Report) -> dict[str, str]:
    """File name -> text."""
    # Names, labels and reasons come from elsewhere; rows.jsonl alone holds them as they are.
    shown = report.printable()
    values = view(shown)
    return {
        HTML_FILE: _environment(html=True).get_template("report.html.j2").render(values),
        MARKDOWN_FILE: _environment(html=False).get_template("report.md.j2").render(values),
        CSV_FILE: dump_csv(shown.rows),
        ROWS_FILE: dump_rows(report.rows),
    }


def _environment(*, html: bool) -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=html,
        finalize=None if html else _markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _markdown(value: object) -> str:
    """Text that Markdown shows as it is, in a table cell too."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text)
