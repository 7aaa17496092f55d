"""The report: what it says, that hostile text stays text, and that it needs nothing else."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmark import Accuracy, BenchmarkResult, Distillation, Report, Row, write_report
from benchmark.report import summary
from benchmark.report.render import is_report, render
from benchmark.schema import Ratio, Validity
from edge.errors import StorageError

HOSTILE = "<script>alert('x')</script> | \"&"


def _with_accuracies(rows: tuple[Row, ...], values: dict[str, float]) -> tuple[Row, ...]:
    return tuple(
        row.model_copy(
            update={
                "accuracy": Accuracy(
                    metric="accuracy", value=values[row.model.id], engine=_engine(row)
                )
            }
        )
        if row.model.id in values
        else row
        for row in rows
    )


def _engine(row: Row) -> str:
    return "mil-interpreter" if row.model.format == "coreml" else row.runtime.name


@pytest.fixture
def report(measured: BenchmarkResult) -> Report:
    """All that a pipeline knows: accuracies, and a distillation."""
    values = {"student/onnx-fp32": 0.94, "student/onnx-int8": 0.90, "student/coreml-fp16": 0.94}
    made = Report.of(
        measured,
        title="A small model",
        distillation=Distillation(
            recipe="soft",
            teacher="models/teacher",
            metric="accuracy",
            teacher_value=0.957,
            student_value=0.941,
            teacher_parameters=22_700_000,
            student_parameters=11_300_000,
        ),
    )
    return made.model_copy(update={"rows": _with_accuracies(made.rows, values)})


def _artifact_lines(text: str) -> list[str]:
    """The lines of the artifacts' tables."""
    part = text.partition("## Artifacts\n")[2].partition("\n## ")[0]
    return [line for line in part.splitlines() if line.startswith("|")]


class _Page(HTMLParser):
    """Tags, links and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}
        self.links += [value or "" for name, value in attrs if name in names]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_four_files_are_written_beside_others(report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "kept.txt").write_text("mine")
    assert not is_report(folder)
    write_report(folder, report)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["kept.txt", "report.html", "report.md", "rows.csv", "rows.jsonl"]
    assert is_report(folder)
    lines = (folder / "rows.jsonl").read_text().splitlines()
    assert tuple(Row.model_validate_json(line) for line in lines) == report.rows
    assert json.loads(lines[0])["schema_version"] == "2"


def test_a_report_that_cannot_be_rendered_changes_nothing(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(tmp_path, report)
    before = (tmp_path / "report.html").read_text()
    monkeypatch.setattr("benchmark.report.template_variables._method", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(tmp_path, report.model_copy(update={"title": "other"}))
    assert (tmp_path / "report.html").read_text() == before
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_that_cannot_be_written_is_one_line(report: Report, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises((StorageError, NotADirectoryError, FileExistsError)):
        write_report(file, report)
    assert file.read_text() == ""


def test_the_page_loads_nothing_from_elsewhere(report: Report) -> None:
    text = render(report)["report.html"]
    page = _Page(text)
    assert page.links == []
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert "url(" not in text and "@import" not in text
    assert re.findall(r"https?://", text) == []


def test_hostile_text_stays_text(report: Report) -> None:
    rows = tuple(
        row.model_copy(update={"model": row.model.model_copy(update={"id": f"{HOSTILE}/{i}"})})
        for i, row in enumerate(report.rows)
    )
    rows = (
        rows[0].model_copy(
            update={
                "device": rows[0].device.model_copy(update={"model": HOSTILE, "os": HOSTILE}),
                "validity": rows[0].validity.model_copy(
                    update={"status": "limited", "reasons": (HOSTILE,)}
                ),
            }
        ),
        *rows[1:],
    )
    texts = render(
        report.model_copy(
            update={
                "title": HOSTILE,
                "rows": rows,
                "baseline": HOSTILE,
                "not_measured": (HOSTILE,),
                "distillation": report.distillation
                and report.distillation.model_copy(update={"recipe": HOSTILE, "teacher": HOSTILE}),
            }
        )
    )
    for name in ("report.html", "report.md"):
        assert "<script" not in texts[name]
        assert "&lt;script&gt;" in texts[name]
    assert "script" not in _Page(texts["report.html"]).tags
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in _artifact_lines(texts["report.md"])}
    assert columns == {12}


def test_the_page_says_what_the_rows_say(report: Report, measured: BenchmarkResult) -> None:
    text = _Page(render(report)["report.html"]).text
    for expected in (
        "A small model",
        summary.headline(report),
        "true architecture and random weights",
        "no accuracy is given for it",
        "in MIL interpreter",
        "Core ML (fp16) was not timed: Core ML runs on Apple systems only (use a Mac).",
        "not timed",
        "recipe soft, teacher teacher".capitalize(),
        "22,700,000",
        f"{measured.rows[0].model.bytes:,} bytes",
    ):
        assert expected in text
    assert "Accuracy was not measured" not in text


def test_figures_are_drawings_with_a_description(report: Report) -> None:
    text = render(report)["report.html"]
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    # Size, accuracy, spread.
    assert len(drawings) == 3
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img"
        assert "onnx fp32" in (root.get("aria-label") or "").lower()
    shapes = [e.get("class") for e in ElementTree.fromstring(drawings[0]).iter() if e.get("class")]
    assert shapes.count("marker baseline") == 2
    assert shapes.count("marker int8") == 1


def test_markdown_has_every_artifact_in_one_table(report: Report) -> None:
    text = render(report)["report.md"]
    table = _artifact_lines(text)
    assert sum("ONNX Runtime" in line for line in table) == 3
    assert sum(line.startswith("| Core ML fp16 | Core ML |") for line in table) == 1
    assert "## What was not measured" in text
    assert "x86\\_64" in text or "arm64" in text or "aarch64" in text


def test_without_accuracies_and_baseline_the_report_says_so(measured: BenchmarkResult) -> None:
    # Without reservations either: a machine that sped up is "38% faster in the last quarter".
    rows = tuple(
        _timed_with(row).model_copy(update={"ratio_to_baseline": None, "ratio_same_engine": None})
        for row in measured.rows
        if row.role == "artifact"
    )
    bare = Report(title="Bare", rows=rows)
    texts = render(bare)
    assert "Accuracy was not measured" in texts["report.md"]
    assert "faster" not in texts["report.md"]
    assert summary.headline(bare).startswith("The ")
    assert len(re.findall("<svg", texts["report.html"])) == 2


def test_nothing_timed_is_said_plainly(measured: BenchmarkResult) -> None:
    rows = tuple(row for row in measured.rows if row.latency_ms is None)
    texts = render(Report(title="None", rows=rows))
    assert "No artifact could be timed on this machine." in texts["report.html"]
    assert "<svg" not in texts["report.html"]


def _timed_with(row: Row, *reasons: str) -> Row:
    validity = row.validity.model_copy(update={"status": "limited", "reasons": reasons})
    return row.model_copy(update={"validity": validity})


def test_reservations_common_to_all_rows_are_said_once(measured: BenchmarkResult) -> None:
    first, second, *_ = measured.rows
    rows = (_timed_with(first, "hot", "drift"), _timed_with(second, "hot"))
    text = render(Report(title="x", rows=rows))["report.md"]
    assert text.count("hot\n") == 1
    assert "- all rows: hot\n" in text
    assert "- ONNX fp32 in ONNX Runtime: drift\n" in text


def test_a_ratio_without_an_interval_says_why(measured: BenchmarkResult) -> None:
    ratio = Ratio(
        value=1.27, ci95=None, baseline="bert-base", engine="pytorch", indistinguishable=True
    )
    close = ratio.model_copy(update={"ci95": (0.9, 1.5)})
    for given, words in ((ratio, "1.27× (too few rounds)"), (close, "1.27× (0.900–1.50, indist")):
        row = measured.rows[0].model_copy(update={"ratio_to_baseline": given})
        text = render(Report(title="x", rows=(row,), baseline="bert-base"))["report.md"]
        assert words in text


def _ratio(value: float, low: float, high: float) -> Ratio:
    return Ratio(
        value=value,
        ci95=(low, high),
        baseline="bert-base",
        engine="pytorch",
        indistinguishable=low <= 1 <= high,
    )


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (
            _ratio(23.14, 22.41, 23.92),
            "is 23.1x faster than BERT-base in PyTorch (95% interval 22.4-23.9), ",
        ),
        (
            _ratio(0.5, 0.4, 0.625),
            "is 2.00x slower than BERT-base in PyTorch (95% interval 1.60-2.50), ",
        ),
        (_ratio(1.01, 0.98, 1.03), "cannot be told apart in speed from BERT-base in PyTorch, "),
    ],
)
def test_the_headline_in_words(report: Report, ratio: Ratio, words: str) -> None:
    rows = tuple(
        row.model_copy(
            update={
                "ratio_to_baseline": ratio,
                "validity": Validity(status="valid"),
                "model": row.model.model_copy(update={"bytes": 3_100_000}),
            }
        )
        for row in report.rows
    )
    expected = f"The fp32 ONNX student {words}3.10 MB, accuracy 0.940 (teacher 0.957)."
    assert summary.headline(report.model_copy(update={"rows": rows})) == expected


def test_the_best_artifact_is_the_fastest_of_the_accurate(report: Report) -> None:
    def best(values: dict[str, float]) -> str:
        rows = tuple(row.model_copy(update={"accuracy": None}) for row in report.rows)
        found = summary.best(_with_accuracies(_int8_first(rows), values))
        assert found is not None
        return found.model.precision

    assert best({"student/onnx-fp32": 0.940, "student/onnx-int8": 0.935}) == "int8"
    assert best({"student/onnx-fp32": 0.940, "student/onnx-int8": 0.925}) == "fp32"
    assert best({}) == "int8"
    # Not timed, so it cannot be the best, however accurate.
    assert best({"student/onnx-int8": 0.9, "student/coreml-fp16": 0.99}) == "int8"


def _int8_first(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The same rows with the int8 artifact made the fastest."""
    return tuple(
        row.model_copy(update={"latency_ms": row.latency_ms.model_copy(update={"p50": 1e-6})})
        if row.latency_ms is not None and row.model.precision == "int8"
        else row
        for row in rows
    )
