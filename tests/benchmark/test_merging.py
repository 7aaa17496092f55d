"""Reports of several runs, devices, settings and programs, and the figures and tables in them."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmark import Report, Row, read_several, write_report
from benchmark.ratios import ratio_of
from benchmark.report import summary
from benchmark.report.csv import COLUMNS, dump_csv
from benchmark.report.curves import Line, curves
from benchmark.report.figures import front
from benchmark.report.render import render
from benchmark.report.tables import sustained_words
from benchmark.row_files import dump_rows
from benchmark.schema import (
    Conditions,
    ConditionsPair,
    Operator,
    Ratio,
    Stage,
    Stages,
    Stretch,
    Validity,
)
from benchmark.schema import (
    Row as AnyRow,
)
from edge.bundle import Verification
from edge.cli.report import report as command
from edge.errors import DataError, UserError
from tests.benchmark.conftest import run_command
from tests.benchmark.row_factory import made_device, made_latency, made_row


class _Text(HTMLParser):
    """The visible text of a page, a space for each tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(text.partition("</style>")[2])

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.text += " "


def _page(rows: list[Row]) -> str:
    return " ".join(_Text(render(Report.merged(rows))["report.html"]).text.split())


def _markdown(rows: list[Row]) -> str:
    return render(Report.merged(rows))["report.md"].replace("\\", "")


def _ratio(value: float) -> Ratio | None:
    found = (value, (0.98 * value, 1.02 * value))
    return ratio_of(found, baseline="bert-base", engine="pytorch")


def _with_baseline(run: str, device: str, ms: float) -> list[Row]:
    return [
        made_row(ms=ms, run=run, device=device, ratio_to_baseline=_ratio(20)),
        made_row(form="tflite", precision="int8", ms=ms / 2, run=run, device=device, seed=1),
        made_row("bert-base", "checkpoint", ms=20 * ms, role="baseline", run=run, device=device),
    ]


def test_two_devices_are_a_matrix() -> None:
    rows = [*_with_baseline("a", "Board", 10.0), *_with_baseline("b", "Phone", 40.0)]
    text = _markdown(rows)
    matrix = text.partition("## Devices")[2].partition("\n##")[0]
    assert "| model | Board | Phone |" in matrix
    (line,) = [line for line in matrix.splitlines() if "ONNX fp32" in line]
    assert re.fullmatch(
        r"\| ONNX fp32 in ONNX Runtime \| [\d.]+ · 20.0× \| [\d.]+ · 20.0× \|", line
    )
    assert text.startswith("# Benchmark of student on Board and Phone")
    assert "### on Board" in text and "### on Phone" in text


def test_the_headline_is_about_one_device_and_the_plainest_setting() -> None:
    rows = [
        made_row(ms=ms, length=length, threads=threads, run="a", seed=length + threads)
        for length, threads, ms in ((32, 1, 2.0), (128, 1, 9.0), (128, 2, 5.0))
    ]
    rows.append(made_row(ms=0.5, device="Faster", run="b"))
    found = summary.comparable(rows)
    assert [row.inputs.seq_len for row in found] == [128]
    assert summary.best(rows) is found[0]
    assert "9.0" in summary.details(Report.merged(rows))[0]


def test_sweeps_are_curves_with_a_line_a_model() -> None:
    rows = [
        made_row(form=form, ms=ms * length / 32, length=length, threads=threads, seed=length)
        for form, ms in (("onnx", 1.0), ("tflite", 2.0))
        for length in (32, 64, 128)
        for threads in (1, 2)
    ]
    rows += [made_row(ms=9.0, length=128, batch=8, seed=5)]
    text = render(Report.merged(rows))["report.html"]
    for axis, count in (("tokens per input", 2), ("threads", 2), ("texts per inference", 1)):
        (drawing,) = [
            svg for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL) if f">{axis}" in svg
        ]
        assert drawing.count("<polyline") == count
    assert "Median latency against input length, with 95% intervals. At one thread" in text
    # The plainest setting is open, the others are asked for.
    assert text.count("<details>\n<summary>") == 7
    assert "<summary>32 tokens, 2 threads, batch 1</summary>" in text


def test_one_point_is_no_curve() -> None:
    text = render(Report.merged([made_row(), made_row(form="tflite")]))["report.html"]
    assert "<polyline" not in text


def test_a_curve_has_its_intervals_and_words() -> None:
    line = Line("a & b", [(1, 10.0), (2, 20.0)], "onnx", "int8", [(9.0, 11.0), None])
    svg = curves([line], x_title="threads")
    assert svg.count('class="whisker int8"') == 1
    assert "a &amp; b: 10.0 at 1, 20.0 at 2" in svg


def _sized(ms: float, size: int, accuracy: float | None, **values: Any) -> Row:
    return made_row(ms=ms, size=size, accuracy=accuracy, rounds=1, **values)


def test_the_front_by_hand() -> None:
    rows = [
        _sized(10, 100, 0.90),
        _sized(5, 50, 0.90),
        _sized(4, 60, 0.80),
        _sized(6, 50, 0.85),
        _sized(1, 1, 0.99, validity=Validity(status="invalid", reasons=("wrong",))),
        _sized(1, 1, None, role="baseline"),
    ]
    # The second beats the first in everything but accuracy, where it is equal, and the fourth.
    assert front(rows) == {1, 2}
    assert front(rows[:1]) == {0}


def test_the_front_is_marked_in_table_and_figure() -> None:
    rows = [_sized(10, 100, 0.9), _sized(5, 50, 0.9, precision="int8")]
    texts = render(Report.merged(rows))
    assert texts["report.html"].count('class="front"') == 3
    assert "| ONNX int8 ◎ |" in texts["report.md"]
    assert "| ONNX fp32 |" in texts["report.md"]


def _stretches(values: list[float], **changes: Any) -> tuple[Stretch, ...]:
    return tuple(
        Stretch(start_s=60 * i, end_s=60 * i + 60, n=9, p50=value, p90=value, **changes)
        for i, value in enumerate(values)
    )


def test_ranks_before_and_after_a_sustained_load() -> None:
    hot = [45.0, 60.0, 80.0]
    first = tuple(
        stretch.model_copy(update={"temperature_c": degrees, "thermal_status": "severe"})
        for stretch, degrees in zip(_stretches([10, 12, 20]), hot, strict=True)
    )
    rows = [
        made_row(sustained=first),
        made_row(form="tflite", sustained=_stretches([15, 15.1, 15.2])),
    ]
    found = sustained_words(rows)
    assert found[0] == (
        "On Board, ONNX fp32 in ONNX Runtime went from 10.0 to 20.0 ms, 100% slower, over 3 "
        "minutes without a rest, from 45 to 80 °C; the system said severe."
    )
    assert "kept its 15.0 ms over 3 minutes" in found[1]
    assert found[2] == (
        "The order changed. Fastest first, at the begin: ONNX fp32 in ONNX Runtime, TFLite fp32 in "
        "LiteRT; at the end: TFLite fp32 in LiteRT, ONNX fp32 in ONNX Runtime."
    )
    steady = [rows[1], made_row(sustained=_stretches([1, 1]))]
    assert sustained_words(steady)[-1].startswith("The order stayed the same: ONNX fp32")
    text = render(Report.merged(rows))["report.html"]
    assert "Under sustained load" in text and "temperature, °C" in text


def test_stages_operators_and_the_check_on_the_device() -> None:
    stages = Stages(
        tokenize=Stage(p50=0.1, p90=0.2, n=7),
        infer=Stage(p50=3, p90=4, n=7),
        e2e=Stage(p50=3.2, p90=4.4, n=7),
    )
    operators = tuple(Operator(type=f"Op{n}", count=1, total_ms=1.0, share=0.125) for n in range(8))
    check = Verification(status="passed", engine="onnxruntime", label_agreement=0.96, samples=24)
    text = _markdown([made_row(stages=stages, operators=operators, check=check)])
    assert "| ONNX fp32 in ONNX Runtime | 0.100 (0.200) | 3.00 (4.00) | 3.20 (4.40) | 7 |" in text
    assert "| Op5 | 1 | 1.00 | 12% |" in text
    assert "| 2 others | 2 | 2.00 | 25% |" in text
    assert "96.0%" in text
    page = _page([made_row(check=check)])
    assert "passed, 24 texts" in page


def test_a_full_pass_beside_the_paper() -> None:
    def timed(name: str, form: str, role: str, total_s: float) -> Row:
        latency = made_latency(100, total_s=total_s, n=1500)
        return made_row(name, form, ms=100, role=role, latency_ms=latency)

    text = _markdown(
        [
            timed("distil", "onnx", "artifact", 150),
            timed("bert-base", "checkpoint", "baseline", 300),
        ]
    )
    table = text.partition("## A full pass over a data file")[2].partition("\n##")[0]
    assert "| ONNX fp32 in ONNX Runtime | 1,500 | 150 | 2.00× |" in table
    assert "| BERT-base fp32 in PyTorch | 1,500 | 300 | – |" in table
    assert "| DistilBERT in PyTorch, the paper | – | 410 | 1.63× |" in table
    assert "Board instead of that Xeon" in table


def test_an_emulator_gives_instructions_and_no_latency() -> None:
    rows = [
        made_row(ms=777, kind="emulated", device="a76", instructions=812_000_000, run="q"),
        made_row(ms=10),
    ]
    text = _markdown(rows)
    assert "777" not in text
    assert "812 million" in text
    assert "On a76 (emulated) no latency is shown" in text
    assert text.partition("**")[2].startswith("The fp32 ONNX artifact takes 10")
    alone = _markdown(rows[:1])
    assert "Emulated processors only: answers and instruction counts, but no latency." in alone
    assert "777" not in dump_csv(rows[:1])


def _bare(row: Row) -> Row:
    """The same with everything unknown that may be."""
    latency = row.latency_ms and made_latency(10, n=3).model_copy(
        update=dict.fromkeys(("load", "first", "mean", "p90", "min", "max", "mad", "ci95"))
        | {"raw_ns": (), "blocks": (), "recorded": "nothing"}
    )
    device = made_device("x").model_copy(
        update={"model": None, "abi": None, "cores": None, "os": None, "ram_mb": None}
    )
    inputs = row.inputs.model_copy(
        update={"dataset": None, "samples": None, "seq_len": None, "real_len_p50": None}
    )
    protocol = row.protocol.model_copy(
        update=dict.fromkeys(("min_runs", "min_s", "max_s", "rounds", "seed"))
    )
    return row.model_copy(
        update={
            "model": row.model.model_copy(update={"bytes": None, "sha256": None, "target": None}),
            "runtime": row.runtime.model_copy(update={"threads": None, "version": None}),
            "device": device,
            "inputs": inputs,
            "protocol": protocol,
            "conditions": ConditionsPair(),
            "latency_ms": latency,
            "memory": None,
        }
    )


@pytest.mark.parametrize("p50", [10.0, None])
@pytest.mark.parametrize("role", ["artifact", "baseline", "imported"])
@pytest.mark.parametrize("kind", ["real", "emulated"])
def test_nothing_is_needed(p50: float | None, role: str, kind: str) -> None:
    row = _bare(made_row(role=role, kind=kind))
    assert row.latency_ms is not None
    row = row.model_copy(update={"latency_ms": row.latency_ms.model_copy(update={"p50": p50})})
    row = row.model_copy(update={"device": row.device.model_copy(update={"kind": kind})})
    for rows in ([row], [row, made_row(seed=1)], [row.model_copy(update={"latency_ms": None})]):
        texts = render(Report.merged(rows))
        assert "None" not in _Text(texts["report.html"]).text
        assert "None" not in texts["report.md"]
        assert "None" not in texts["rows.csv"]


def test_csv_has_a_line_a_row_and_units_in_its_names() -> None:
    rows = [made_row(accuracy=0.9, ratio_to_baseline=_ratio(20)), made_row(latency_ms=None)]
    found = list(csv.DictReader(io.StringIO(dump_csv(rows))))
    assert len(found) == 2
    assert list(found[0]) == list(COLUMNS)
    one = found[0]
    assert float(one["latency_p50_ms"]) == pytest.approx(10, abs=0.1)
    assert (one["size_bytes"], one["length_tokens"], one["threads"]) == ("1000000", "128", "1")
    assert (one["ratio_to_baseline"], one["metric_value"]) == ("20.0", "0.9")
    assert found[1]["latency_p50_ms"] == ""


def test_csv_holds_no_formula() -> None:
    model = made_row().model.model_copy(update={"id": "=cmd()"})
    (found,) = csv.DictReader(io.StringIO(dump_csv([made_row(model=model)])))
    assert found["model"] == "'=cmd()"


def test_every_column_is_documented() -> None:
    docs = (Path(__file__).resolve().parents[2] / "docs" / "benchmark.md").read_text()
    missing = [name for name in COLUMNS if f"`{name}`" not in docs]
    assert missing == []


def test_reservations_of_many_rows_are_few_words() -> None:
    busy = Validity(status="limited", reasons=("busy",))
    rows = [made_row(precision=f"int{n}", validity=busy, device="Board") for n in range(9)]
    rows.append(made_row(device="Phone"))
    assert "- all rows on Board: busy" in _markdown(rows)
    rows.append(made_row(precision="fp16", device="Board"))
    assert "int3 in ONNX Runtime, Board and 5 more: busy" in _markdown(rows)
    lengths = [
        made_row(precision=f"int{n}", length=length, **({"validity": busy} if length == 32 else {}))
        for n in range(3)
        for length in (32, 64)
    ]
    assert "- all rows at 32 tokens: busy" in _markdown(lengths)


def test_the_command_merges_folders_and_files(tmp_path: Path) -> None:
    write_report(tmp_path / "a", Report.merged(_with_baseline("a", "Board", 10.0)))
    (tmp_path / "b.jsonl").write_text(dump_rows(_with_baseline("b", "Phone", 40.0)))
    output = tmp_path / "all"
    again = (tmp_path / "a" / "rows.jsonl", tmp_path / "a")
    found = run_command(command, tmp_path / "a", tmp_path / "b.jsonl", *again, "--output", output)
    assert found.stdout.strip() == str(output / "report.html")
    assert "6 rows of 2 runs" in found.stderr
    assert len(read_several([output])) == 6
    # A report may be written anew, a folder of something else never.
    run_command(command, tmp_path / "a", "--output", output, "--title", "Mine")
    assert "# Mine\n" in (output / "report.md").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text").write_text("")
    with pytest.raises(UserError, match="was not written by this command"):
        run_command(command, tmp_path / "a", "--output", tmp_path / "mine")


def test_a_row_without_a_column_is_refused_in_one_line(tmp_path: Path) -> None:
    row = made_row().model_dump(mode="json")
    del row["runtime"]["name"]
    text = AnyRow.model_construct(**row).model_dump_json(warnings=False)
    (tmp_path / "rows.jsonl").write_text(f"{dump_rows([made_row()])}{text}\n")
    with pytest.raises(DataError, match=r"rows.jsonl, line 2: runtime.name: Field required"):
        run_command(command, tmp_path / "rows.jsonl", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_conditions_are_told_for_each_device() -> None:
    now = Conditions(
        at_utc="x",
        thermal_status="moderate",
        battery_percent=71,
        charging=False,
        governor="schedutil",
    )
    row = made_row(conditions=ConditionsPair(before=now, after=now, other_cores=0.1))
    text = _markdown([row, made_row(device="Phone", run="b")])
    assert "- battery: 71 %, not charging" in text
    assert "- throttling after: moderate" in text
    assert "### Board, 2025-01-01T00:00:00Z" in text


def test_no_text_from_elsewhere_steers_what_shows_a_report() -> None:
    """Every text of a row, whichever it is, in each of the files for people."""
    evil = "a\x1b[2Jb\x9bc\u202ed\ne|f<i>"

    def spoiled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: spoiled(held) for name, held in value.items()}
        if isinstance(value, list):
            return [spoiled(held) for held in value]
        return evil if value == "here" else value

    row = made_row(ms=3.0, accuracy=0.9).model_dump(mode="json")
    row["model"] |= {"id": "here", "arch": "here"}
    row["runtime"] |= {"name": "here", "version": "here", "provider": "here"}
    row["device"] |= {"model": "here", "os": "here", "abi": "here", "versions": {"x": "here"}}
    row["inputs"]["dataset"] = "here"
    row["accuracy"] |= {"metric": "here", "engine": "here"}
    row["validity"] = {"status": "limited", "reasons": ["here"]}
    row["operators"] = [{"type": "here", "count": 1, "total_ms": 1.0, "share": 1.0}]
    rows = [AnyRow.model_validate(spoiled(row))]
    files = render(Report.merged(rows, title=evil))
    for name in ("report.html", "report.md", "rows.csv"):
        for line in files[name].split("\n"):
            assert line.isprintable() or not line, (name, line)
        assert "<i>" not in files[name] or name == "rows.csv"
        assert "a\\x1b" in files[name].replace("\\\\", "\\"), name
