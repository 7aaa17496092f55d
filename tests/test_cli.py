"""The command line as a user meets it: help, exit codes, one-line errors, clean interruption."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmark.config import BenchmarkConfig, DeviceOptions
from benchmark.report.compare import MARGIN
from converters.config import ConvertConfig
from converters.packs.config import PackConfig
from distill.recipe.config import DistillConfig
from edge.cli import app
from edge.cli.app import run_command
from edge.cli.defaults import DEFAULTS
from edge.config import Config
from edge.inspection.artifact import DEFAULT_TOP
from edge.pipeline.demo import TRAIN_ROWS

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (
    "distill",
    "recipes",
    "convert",
    "pack",
    "verify",
    "evaluate",
    "exits",
    "benchmark",
    "devices",
    "predict",
    "inspect",
    "run",
    "demo",
    "doctor",
)
HEAVY = ("torch", "transformers", "coremltools", "onnx", "numpy", "datasets", "jinja2")


def edge(*arguments: str | Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(arguments), capture_output=True, text=True, timeout=timeout_s, check=False
    )


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-m", "edge.cli.main", *(str(argument) for argument in arguments)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "data.tsv"
    rows = [
        ("a good film", "positive"),
        ("the plot was bad", "negative"),
        ("it is not great", "neutral"),
    ]
    file.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return file


def test_every_command_has_help() -> None:
    found = edge("--help")
    assert found.returncode == 0
    for name in COMMANDS:
        assert name in found.stdout
    for name in COMMANDS:
        found = edge(name, "--help")
        assert (found.returncode, found.stderr) == (0, "")
        assert "--debug" in found.stdout


def test_help_shows_the_defaults_that_configurations_have() -> None:
    configs: dict[str, type[Config]] = {
        "distill": DistillConfig,
        "convert": ConvertConfig,
        "benchmark": BenchmarkConfig,
        "pack": PackConfig,
    }
    # Those of options whose default is elsewhere, with a function of the command or the device.
    others = {
        "benchmark": {
            "remote_python": DeviceOptions().python,
            "timeout": f"{DeviceOptions().timeout_s:g}",
        },
        "compare": {"margin": str(MARGIN)},
        "inspect": {"top": str(DEFAULT_TOP)},
        "demo": {"train_rows": str(TRAIN_ROWS)},
    }
    assert DEFAULTS.keys() == {*configs, *others}
    for command in DEFAULTS:
        # A narrow column breaks words.
        shown = "".join(edge(command, "--help").stdout.replace("│", " ").split())
        options = inspect.signature(app._COMMANDS[command]).parameters
        expected = dict(others.get(command, {}))
        fields = configs[command].model_fields if command in configs else {}
        for name, field in fields.items():
            value = getattr(field.default, "value", field.default)
            if isinstance(value, tuple):
                value = ", ".join(map(str, value)) or None
            asked = name in options and options[name].default is None
            if asked and isinstance(value, str | int | float) and not isinstance(value, bool):
                expected[name] = str(value)
        assert DEFAULTS[command] == expected
        for value in expected.values():
            assert "".join(f"[default:({value})]".split()) in shown


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nimport edge.cli.main as cli\n"
        "try: cli.main(['convert', '--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("convert {checkpoint} -o {tmp}/b --format onxx", "did you mean 'onnx'?"),
        ("convert {checkpoint} -o {tmp}/b --precision fp61", "did you mean 'fp16'?"),
        ("convert {checkpoint} -o {tmp}/b --seq-length 999", "beyond the model's 64 positions"),
        ("convert {checkpoint} -o {tmp}/b --seq-length ten", "needs whole numbers above 0"),
        ("convert {checkpoint} -o {tmp}/b --seq-length 1,²", "numbers above 0, not '²'"),
        (f"convert {{checkpoint}} -o {{tmp}}/b --seq-length 1{'0' * 5000}", "numbers above 0"),
        ("convert {tmp}/none -o {tmp}/b", "does not exist: check the path"),
        ("convert {checkpoint} -o {checkpoint}", "was not written by this command"),
        ("verify {tmp}", "is not a bundle"),
        ("evaluate {bundle} --data {tmp}/none.tsv", "does not exist: check the path"),
        ("evaluate {bundle} --data {data} --label-column lable", "did you mean 'label'?"),
        ("evaluate {bundle} --data {data} --engine onnxrt", "did you mean 'onnxruntime'?"),
        ("predict {bundle} --text a --format tflit", "did you mean 'tflite'?"),
        ("benchmark {bundle} --baseline bert-bse", "did you mean 'bert-base'?"),
        ("benchmark {bundle} --preset quik", "did you mean 'quick'?"),
        ("benchmark {bundle} --seq-length 20", "20 tokens"),
        ("inspect {tmp}/none", "does not exist"),
        (
            "run defult --teacher {checkpoint} --train {data} --eval {data} -o {tmp}/run",
            "unknown recipe 'defult': did you mean 'default'?",
        ),
        (
            "run default --teacher {checkpoint} --train {tmp}/no.tsv --eval {data} -o {tmp}/run",
            "no.tsv does not exist: check the path",
        ),
        (
            "distill --teacher {checkpoint} --student layer=1 --train {data} -o {tmp}/s",
            "did you mean 'layers'?",
        ),
    ],
)
def test_a_user_s_mistake_is_one_line_and_exit_2(
    bert_checkpoint: Path,
    bert_bundle: Path,
    data: Path,
    tmp_path: Path,
    arguments: str,
    message: str,
) -> None:
    places = {"checkpoint": bert_checkpoint, "bundle": bert_bundle, "data": data, "tmp": tmp_path}
    before = sorted(tmp_path.rglob("*"))
    found = edge(*(word.format(**places) for word in arguments.split()))
    lines = found.stderr.strip().splitlines()
    assert found.returncode == 2, found.stderr
    assert found.stdout == ""
    assert lines[-1].startswith("edge: ")
    assert message in lines[-1]
    assert "Traceback" not in found.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_text_may_be_empty(bert_bundle: Path) -> None:
    for text in (["--text", ""], ["--text="]):
        arguments = ["predict", str(bert_bundle), *text, "--format", "onnx", "--precision", "fp32"]
        assert run_command(arguments, debug=False) == 0


def test_usage_errors_exit_2() -> None:
    assert edge("convert").returncode == 2
    assert edge("conver").returncode == 2


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    found = edge("verify", tmp_path, "--debug")
    assert found.returncode != 0
    assert "Traceback" in found.stderr


def test_results_are_json_on_stdout(bert_bundle: Path, data: Path) -> None:
    found = edge("evaluate", bert_bundle, "--data", data, "--json")
    assert found.returncode == 0, found.stderr
    artifacts = json.loads(found.stdout)["artifacts"]
    assert len(artifacts) == 9
    keys = {"format", "precision", "engine", "metric", "value", "samples"}
    assert all(set(row) >= keys and row["samples"] == 3 for row in artifacts)
    found = edge("verify", bert_bundle, "--json", "--format", "onnx,coreml")
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["artifacts"]) == 6
    found = edge("predict", bert_bundle, "--text", "a good film", "--text", "", "--json")
    assert found.returncode == 0, found.stderr
    predictions = json.loads(found.stdout)["predictions"]
    assert len(predictions) == 18
    first = {row["prediction"]["label"] for row in predictions if row["text"]}
    assert len(first) == 1, "all artifacts agree"


def test_a_failed_verification_exits_1(bert_bundle: Path, tmp_path: Path) -> None:
    import shutil

    from edge.bundle import Manifest, write_manifest
    from edge.storage import sha256, size_bytes

    copy = Path(shutil.copytree(bert_bundle, tmp_path / "copy"))
    shutil.copy(copy / "model-int8.onnx", copy / "model-fp32.onnx")
    manifest = json.loads((copy / "edge.json").read_text())
    for artifact in manifest["artifacts"]:
        artifact["sha256"] = sha256(copy / artifact["file"])
        artifact["bytes"] = size_bytes(copy / artifact["file"])
    write_manifest(copy, Manifest.build(manifest))
    found = edge("verify", copy, "--format", "onnx")
    assert found.returncode == 1
    assert "onnx-fp32 failed in onnxruntime: relative error" in found.stderr


def test_ctrl_c_leaves_no_bundle_and_no_process(bert_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    process = subprocess.Popen(
        command(["convert", bert_checkpoint, "-o", output]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What runs in the background of a script inherits that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not any(tmp_path.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1] == "edge: interrupted"
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
