"""The commands of the storms, each on models so tiny that a run takes a second or two."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from scripts.storm import shim
from scripts.storm.storm import Case

ROOT = Path(__file__).resolve().parents[2]
_TEXTS = ("the film was good", "a bad plot", "not great", "great film", "bad", "who is good")
_LABELS = ("negative", "positive")
# Keys of JSON, and columns of a table, whose values differ from run to run.
_VOLATILE = re.compile(
    rb'"(created_utc|duration_s|made_from|fingerprint|started_utc|at_utc|run_id)": ?[^,}\n]*'
)
# Modules of the commands that take long to import.
_MODULES = (
    *("onnx", "onnxruntime", "onnxruntime_extensions", "transformers.trainer"),
    *("benchmark.run", "converters.onnx.export", "distill.prepare", "distill.training.trainer"),
    "edge.pipeline.run",
)
# A manifest's checksum of itself, which includes times.
_SEAL = re.compile(rb'^  "sha256": [^\n]*$', re.MULTILINE)
_REPORT = ("report.html", "report.md", "rows.csv", "rows.jsonl")


class Inputs:
    """Input files of the cases, made once in a folder, each in a process of its own."""

    def __init__(self, work: Path) -> None:
        self.folder, self._log = work, work / "log"
        self.train = self._rows("train.tsv", 4)
        self.eval = self._rows("eval.tsv", 2)
        self.models = _models()

    def make_once(self, name: str, make: Callable[[Path], object]) -> Path:
        path = self.folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            outcome = shim.run(lambda: make(path), self.folder, self._log)
            if outcome.code:
                raise RuntimeError(f"{name} cannot be made:\n{outcome.output}")
        return path

    def checkpoint(self, seed: int = 0) -> Path:
        def make(path: Path) -> None:
            self.models.tiny_checkpoint(path, "bert", labels=_LABELS, seed=seed)

        return self.make_once(f"checkpoint-{seed}", make)

    def bundle(self, seed: int = 0) -> Path:
        source = self.checkpoint(seed)
        return self.make_once(f"bundle-{seed}", lambda path: _convert(source, path))

    def _rows(self, name: str, times: int) -> Path:
        lines = [f"{text}\t{_LABELS[i % 2]}" for i, text in enumerate(_TEXTS * times)]
        path = self.folder / name
        path.write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")
        return path


def warm(names: Iterable[str]) -> None:
    """Import the cases' modules before forking; run nothing else."""
    if set(names) <= {"storage", "report"}:
        return
    for module in _MODULES:
        importlib.import_module(module)
    importlib.import_module("torch").set_num_threads(1)


def storage(inputs: Inputs) -> Case:
    """The functions that write output: a folder, files that change together, single files."""
    template = _template(inputs, "storage", lambda folder: _store(folder, "old"))
    outputs = ("folder", "together", "file", "text")
    act: Callable[[Path], object] = lambda folder: _store(folder, "new")  # noqa: E731
    return Case("storage", template, act, outputs)


def report(inputs: Inputs) -> Case:
    """`edge report` of other rows, in a folder with files of the user."""

    def rows(name: str, latency_ms: float) -> Path:
        return inputs.make_once(name, lambda path: _write_rows(path, latency_ms))

    old, new = rows("old/rows.jsonl", 10.0), rows("new/rows.jsonl", 5.0)
    template = _template(inputs, "report", lambda folder: _report(old, folder / "out"))
    (template / "out" / "deep").mkdir(exist_ok=True)
    (template / "out" / "deep" / "mine.txt").write_text("mine")
    return Case("report", template, lambda folder: _report(new, folder / "out"), ("out",))


def pack(inputs: Inputs) -> Case:
    """`edge pack ort-text` of another bundle."""
    first, second = inputs.bundle(0), inputs.bundle(1)
    template = _template(inputs, "pack", lambda folder: _pack(first, folder / "out.onnx"))
    act: Callable[[Path], object] = lambda folder: _pack(second, folder / "out.onnx")  # noqa: E731
    return Case("pack", template, act, ("out.onnx",))


def convert(inputs: Inputs) -> Case:
    """`edge convert` of another checkpoint, to ONNX."""
    first, second = inputs.checkpoint(0), inputs.checkpoint(1)
    template = _template(inputs, "convert", lambda folder: _convert(first, folder / "out"))
    act: Callable[[Path], object] = lambda folder: _convert(second, folder / "out")  # noqa: E731
    return Case("convert", template, act, ("out",), comparable=_without_times)


def distill(inputs: Inputs) -> Case:
    """`edge distill` with another seed, early stopping, and a saved state after every step."""

    def act(folder: Path, seed: int = 1) -> None:
        _distill(inputs, folder / "out", seed=seed)

    inputs.checkpoint()
    template = _template(inputs, "distill", lambda folder: act(folder, seed=2))
    return Case("distill", template, act, ("out",), comparable=_without_times)


def benchmark(inputs: Inputs) -> Case:
    """`edge benchmark` of another bundle, with one worker process."""
    first, second = inputs.bundle(0), inputs.bundle(1)
    template = _template(inputs, "benchmark", lambda folder: _benchmark(first, folder / "out"))
    return Case(
        "benchmark",
        template,
        lambda folder: _benchmark(second, folder / "out"),
        ("out",),
        comparable=_without_measurements,
        check=lambda folder: _inconsistency(folder / "out"),
    )


def run(inputs: Inputs) -> Case:
    """`edge run` with another seed of the training."""
    inputs.checkpoint()
    template = _template(inputs, "run", lambda folder: _run(inputs, folder / "out", seed=2))
    return Case(
        "run",
        template,
        lambda folder: _run(inputs, folder / "out", seed=1),
        ("out/student", "out/bundle"),
        comparable=_without_measurements,
        check=lambda folder: _inconsistency(folder / "out"),
    )


CASES: dict[str, Callable[[Inputs], Case]] = {
    case.__name__: case for case in (storage, report, pack, convert, distill, benchmark, run)
}


def _template(inputs: Inputs, name: str, first: Callable[[Path], object]) -> Path:
    """Make a folder with the old output, and a file of the user in and beside it."""

    def make(folder: Path) -> None:
        folder.mkdir()
        first(folder)

    folder = inputs.make_once(f"templates/{name}", make)
    (folder / "mine.txt").write_text("mine")
    return folder


def _store(folder: Path, word: str) -> None:
    from edge.storage import output_lock, staged_file, staged_folder, write_text, write_together

    target = folder / "folder"
    with output_lock(target), staged_folder(target, replaces=lambda _: True) as stage:
        (stage / "deep").mkdir()
        (stage / "deep" / word).write_text(word)
        write_text(stage / "a", word)
    write_together(folder / "together", {"a": word, "b": word})
    (folder / "together" / "mine").mkdir(exist_ok=True)
    with staged_file(folder / "file") as file:
        file.write_text(word)
        file.with_name("scratch").write_text(word)
    write_text(folder / "text", word)


def _report(rows: Path, output: Path) -> None:
    from edge.cli.report import report as command

    command([rows], output, title="A report")


def _pack(bundle: Path, output: Path) -> None:
    from converters.packs import PackConfig
    from converters.packs import pack as run_pack

    values = {"kind": "ort-text", "bundle": bundle, "output": output, "precision": "fp32"}
    run_pack(PackConfig.build(values))


def _convert(source: Path, output: Path) -> None:
    from converters import ConvertConfig
    from converters import convert as run_convert

    values = {"format": ("onnx",), "precision": ("fp32", "int8"), "seq_length": (16, 32)}
    run_convert(ConvertConfig.build({**values, "source": str(source), "output": output}))


def _distill(inputs: Inputs, output: Path, *, seed: int) -> None:
    from distill import DistillConfig, distill

    values = {
        "teacher": str(inputs.checkpoint()),
        "student": "layers=1",
        "train": str(inputs.train),
        "eval": str(inputs.eval),
        "output": output,
        "recipe": "kd",
        "epochs": 2,
        "batch_size": 12,
        "early_stopping": 1,
        "save_seconds": 0,
        "seed": seed,
    }
    distill(DistillConfig.build(values))


def _tiny_protocol() -> Any:
    from benchmark import Protocol

    return Protocol(
        min_runs=8, min_s=0.0, max_s=2, rounds=2, warmup_runs=1, warmup_s=0.0, warmup_max_s=0.5
    )


def _benchmark(bundle: Path, output: Path) -> None:
    from benchmark import PRESETS
    from edge.cli.benchmark import benchmark as command

    PRESETS["quick"] = _tiny_protocol()
    command([str(bundle)], baseline="none", output=output, precision=["fp32"], preset="quick")


def _run(inputs: Inputs, output: Path, *, seed: int) -> None:
    from benchmark import PRESETS
    from edge.pipeline.config import RunRecipe
    from edge.pipeline.run import RunInputs
    from edge.pipeline.run import run as run_pipeline

    PRESETS["quick"] = _tiny_protocol()
    distillation = {"recipe": "kd", "student": "layers=1", "epochs": 1, "batch_size": 12}
    recipe = RunRecipe(
        name="storm",
        distill={**distillation, "seed": seed, "save_seconds": 0},
        convert={"format": ("onnx",), "precision": ("fp32",), "seq_length": (16,)},
        benchmark={"baseline": "none", "seq_length": 16, "preset": "quick"},
    )
    teacher, train, held_out = inputs.checkpoint(), str(inputs.train), str(inputs.eval)
    run_pipeline(recipe, RunInputs(teacher=str(teacher), train=train, eval=held_out, output=output))


def _without_times(path: Path) -> bytes:
    """Return a file's content without times, and without checksums that include times."""
    content = _VOLATILE.sub(b"", path.read_bytes())
    return _SEAL.sub(b"", content) if path.name == "edge.json" else content


def _without_measurements(path: Path) -> bytes:
    """Return the content as `_without_times` does, without measurements."""
    if path.name in _REPORT or path.name == "run.json":
        return b"measured"
    return _without_times(path)


def _inconsistency(output: Path) -> str | None:
    """Return the inconsistency of a report's files, or None."""
    from benchmark import read_rows
    from benchmark.report.csv import dump_csv
    from edge.console import three_figures

    if not all((output / name).is_file() for name in _REPORT):
        return "a file of the report is missing"
    rows = read_rows(output)
    if dump_csv(rows) != (output / "rows.csv").read_text(encoding="utf-8"):
        return "rows.csv is of another report than rows.jsonl"
    medians = {three_figures(row.latency_ms.p50) for row in rows if row.latency_ms is not None}
    for name in ("report.html", "report.md"):
        page = (output / name).read_text(encoding="utf-8")
        if not all(median in page for median in medians):
            return f"{name} is of another report"
    return None


def _write_rows(path: Path, latency_ms: float) -> None:
    """Write a file of rows as a benchmark does."""
    from benchmark.row_files import dump_rows

    path.parent.mkdir(exist_ok=True)
    row = _loaded("tests/benchmark/row_factory.py").made_row(ms=latency_ms)
    path.write_text(dump_rows([row]), encoding="utf-8")


def _models() -> ModuleType:
    return _loaded("tests/models.py")


def _loaded(name: str) -> ModuleType:
    """Import a helper of the tests by path: some libraries install a package called `tests`."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
