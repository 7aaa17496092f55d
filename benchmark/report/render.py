"""Files of a report: an HTML page, the same in Markdown, and the rows as CSV and JSON lines."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from benchmark.report.csv import dump_csv
from benchmark.report.model import Report
from benchmark.report.template_variables import template_variables
from benchmark.row_files import ROWS_FILE, dump_rows
from edge.storage import write_together

HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"
CSV_FILE = "rows.csv"
_TEMPLATES = Path(__file__).parent / "templates"


def is_report(folder: Path) -> bool:
    """Return True if a folder holds a report, which a new one may replace."""
    return (folder / ROWS_FILE).is_file()


def write_report(folder: Path, report: Report) -> None:
    """Write `report.html`, `report.md`, `rows.csv` and `rows.jsonl` into `folder`.

    They change together, in one step if the system supports it. Other files there stay.
    Raises StorageError if the folder cannot be written, UserError while another command writes it.
    """
    # Everything is rendered before anything is written: a failure changes nothing.
    write_together(folder, render(report))


def render(report: Report) -> dict[str, str]:
    """Return file name -> text."""
    # Names, labels and reasons may come from other machines; only rows.jsonl keeps them unchanged.
    shown = report.printable()
    values = template_variables(shown)
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
    """Escape a text for Markdown, in a table cell too."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text)
