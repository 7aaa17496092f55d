"""Look-ups by everything that tells rows and artifacts apart: targets, engines, settings, names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import benchmark
from benchmark import Report, Row
from benchmark.config import Baseline
from benchmark.devices import get_device
from benchmark.keys import baselines_beside, reference_beside
from benchmark.measure.plan import Planner
from benchmark.report import render
from benchmark.row_files import dump_rows
from benchmark.run import BenchmarkResult
from edge.bundle import Artifact, Bundle, Verification, write_manifest
from edge.cli.run import _row
from edge.cli.verify import _records, print_verifications
from edge.evaluate import Evaluation
from edge.pipeline.run import _report
from edge.signature import TensorSpec
from tests.benchmark.conftest import LETTERS, write_bundle
from tests.benchmark.row_factory import made_row
from tests.benchmark.tiny_tflite import write_tflite

TARGETS = {"onnxruntime": 0.9, "avx2": 0.5, "portable": 0.7}


def _of(row: Row, target: str) -> Row:
    name = f"student/onnx-int8-{target}"
    model = row.model.model_copy(update={"target": target, "id": name})
    return row.model_copy(update={"model": model})


def _rows() -> list[Row]:
    return [_of(made_row(precision="int8"), target) for target in TARGETS]


def _artifacts() -> list[Artifact]:
    inputs = tuple(
        TensorSpec(name=name, dtype="int32", shape=("batch", "sequence"))
        for name in ("input_ids", "attention_mask")
    )
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", 2))
    return [
        Artifact(
            format="onnx",
            target=target,
            precision="int8",
            file=f"model-int8-{target}.onnx",
            bytes=10,
            sha256="0" * 64,
            inputs=inputs,
            outputs=(logits,),
            sequence_lengths=(8,),
            dynamic_sequence=True,
            verification=_proof(share),
            verifications=(_proof(share),),
        )
        for target, share in TARGETS.items()
    ]


def _proof(share: float) -> Verification:
    return Verification(status="passed", engine="onnxruntime", label_agreement=share, samples=6)


def _evaluations() -> list[Evaluation]:
    """In another order than the artifacts, and one of them is missing."""
    values = {"precision": "int8", "engine": "onnxruntime", "metric": "accuracy", "samples": 9}
    return [
        Evaluation(format="onnx", target=target, value=TARGETS[target], **values)
        for target in ("portable", "onnxruntime")
    ]


def test_a_run_s_report_gives_every_target_its_own_accuracy() -> None:
    plan = SimpleNamespace(
        inputs=SimpleNamespace(teacher="t"), recipe=SimpleNamespace(name="default")
    )
    distillation = {
        "recipe": "kd",
        "metric": "accuracy",
        "teacher_value": 0.9,
        "value": 0.9,
        "teacher_parameters": 1,
        "parameters": 1,
    }
    measured = BenchmarkResult(rows=tuple(_rows()), not_measured=(), verifications={})
    plan_: Any = plan
    found = _report(plan_, distillation, _evaluations(), measured)
    values = [row.accuracy and row.accuracy.value for row in found.rows]
    assert values == [0.9, None, 0.7]


def test_a_run_s_table_gives_every_target_its_own_agreement() -> None:
    result: Any = SimpleNamespace(manifest=SimpleNamespace(artifacts=_artifacts()))
    lines = [_row(result, row.model_dump(mode="json")) for row in _rows()]
    assert [line[1] for line in lines] == ["int8", "int8-avx2", "int8-portable"]
    assert [line[5] for line in lines] == ["0.900", "0.500", "0.700"]


def test_metrics_of_a_verification_are_those_of_the_artifact(
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = _records(_artifacts(), _evaluations())
    assert [record.get("evaluation", {}).get("value") for record in records] == [0.9, None, 0.7]
    print_verifications("x", _artifacts(), _evaluations())
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[-1] for line in lines] == ["accuracy", "0.9000", "-", "0.7000"]


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "other"},
        {"threads": 2},
        {"length": 64},
        {"batch": 8},
        {"device": "Other"},
        {"kind": "emulated"},
    ],
)
def test_a_baseline_of_another_run_setting_or_device_is_not_beside(changes: Any) -> None:
    row = made_row()
    baseline = made_row("bert-base", "onnx", role="baseline", **changes)
    assert baselines_beside(row, [row, baseline]) == []
    right = made_row("bert-base", "onnx", role="baseline")
    assert reference_beside(row, [baseline, right], "onnxruntime") is right


def test_folders_of_one_name_are_told_apart(
    bundle: Path, baseline_checkpoint: Path, tmp_path: Path
) -> None:
    other = tmp_path / baseline_checkpoint.name
    other.symlink_to(baseline_checkpoint, target_is_directory=True)
    copied = tmp_path / "copy" / "bert"
    copied.mkdir(parents=True)
    for file in baseline_checkpoint.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    config = benchmark.BenchmarkConfig(
        bundles=(bundle,), format=("onnx",), checkpoints=(baseline_checkpoint, copied)
    )
    planner = Planner(config, get_device("local"))
    names = [cell.model.id for cell in planner.plan(planner.settings[0], None).cells]
    assert len(set(names)) == len(names) == 4


def test_a_baseline_is_timed_in_every_engine_that_an_artifact_is_timed_in(tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    write_tflite(model, lengths=(8,), vocabulary=2 * len(LETTERS))
    made = write_bundle(tmp_path / "made", {("tflite", "fp32"): model}, lengths=(8,))
    old = write_bundle(tmp_path / "old", {("tflite", "fp32"): model}, lengths=(8,))
    _change(old, target="legacy", runtimes=("tflite-runtime",))
    base = write_bundle(tmp_path / "base", {("tflite", "fp32"): model}, lengths=(8,))
    _change(base, target="legacy", runtimes=("litert", "tflite-runtime"))
    config = benchmark.BenchmarkConfig(bundles=(made, old))
    planner = Planner(config, get_device("local"))
    plan = planner.plan(planner.settings[0], Baseline(name="base", bundle=base))
    engines = [cell.engine for cell in plan.cells if cell.role == "baseline"]
    assert engines == [cell.engine for cell in plan.cells if cell.role == "artifact"]
    assert engines in (["litert", "tflite-runtime"], ["litert"])


def _change(folder: Path, **values: Any) -> None:
    """Give the artifacts of a bundle other values."""
    manifest = Bundle.open(folder).manifest
    artifacts = [artifact.model_copy(update=values) for artifact in manifest.artifacts]
    write_manifest(folder, manifest.model_copy(update={"artifacts": tuple(artifacts)}))


def test_several_runs_on_one_device_are_all_in_the_matrix() -> None:
    rows = [
        made_row(ms=10.0, run="a"),
        made_row(ms=20.0, run="b"),
        made_row(ms=40.0, run="c", device="Phone"),
    ]
    text = render.render(Report.merged(rows))["report.md"]
    (line,) = [line for line in text.splitlines() if line.startswith("| ONNX fp32 in ONNX")]
    cells = [cell.strip() for cell in line.split("|")]
    assert [round(float(value)) for value in cells[2].split(";")] == [10, 20]
    assert "Several runs on one device follow each other." in text


def test_rows_that_differ_in_anything_are_all_kept(tmp_path: Path) -> None:
    row = made_row()
    others = [
        made_row(device="Phone"),
        made_row(threads=2),
        row.model_copy(update={"model": row.model.model_copy(update={"sha256": "other"})}),
        row.model_copy(update={"model": row.model.model_copy(update={"target": "portable"})}),
        row.model_copy(update={"device": row.device.model_copy(update={"address": "serial-2"})}),
        row.model_copy(update={"runtime": row.runtime.model_copy(update={"provider": "GPU"})}),
    ]
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(dump_rows([row, *others]))
    found = benchmark.read_several([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert found == (row, *others)
