"""The commands that storms go over, each on models so tiny that a run takes a second or two."""

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
# What takes long to import in the commands.
_MODULES = (
    *("onnx", "onnxruntime", "onnxruntime_extensions", "transformers.trainer"),
    *("benchmark.run", "converters.onnx.export", "distill.inputs", "distill.training.trainer"),
    "edge.pipeline.run",
)
# The hash that a manifest has of itself, with the time in it.
_SEAL = re.compile(rb'^  "sha256": [^\n]*$', re.MULTILINE)
_REPORT = ("report.html", "report.md", "rows.csv", "rows.jsonl")


class Inputs:
    """What the cases read, made once in a folder, each in a process of its own."""

    def __init__(self, work: Path) -> None:
        self.folder, self._log = work, work / "log"
        self.train = self._rows("train.tsv", 4)
        self.eval = self._rows("eval.tsv", 2)
        self.models = _models()

    def made(self, name: str, make: Callable[[Path], object]) -> Path:
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

        return self.made(f"checkpoint-{seed}", make)

    def bundle(self, seed: int = 0) -> Path:
        source = self.checkpoint(seed)
        return self.made(f"bundle-{seed}", lambda path: _convert(source, path))

    def _rows(self, name: str, times: int) -> Path:
        lines = [f"{text}\t{_LABELS[i % 2]}" for i, text in enumerate(_TEXTS * times)]
        path = self.folder / name
        path.write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")
        return path


def warm(names: Iterable[str]) -> None:
    """Import what these cases import, so that forked children need not; nothing may run here."""
    if set(names) <= {"storage", "report"}:
        return
    for module in _MODULES:
        importlib.import_module(module)
    importlib.import_module("torch").set_num_threads(1)


def storage(inputs: Inputs) -> Case:
    """What every command writes with: a folder, files that change together, and single files."""
    template = _template(inputs, "storage", lambda here: _store(here, "old"))
    outputs = ("folder", "together", "file", "text")
    act: Callable[[Path], object] = lambda here: _store(here, "new")  # noqa: E731
    return Case("storage", template, act, outputs)


def report(inputs: Inputs) -> Case:
    """`edge report` of other rows, in a folder with files of the user."""

    def rows(name: str, latency_ms: float) -> Path:
        return inputs.made(name, lambda path: _made_rows(path, latency_ms))

    old, new = rows("old/rows.jsonl", 10.0), rows("new/rows.jsonl", 5.0)
    template = _template(inputs, "report", lambda here: _report(old, here / "out"))
    (template / "out" / "deep").mkdir(exist_ok=True)
    (template / "out" / "deep" / "mine.txt").write_text("mine")
    return Case("report", template, lambda here: _report(new, here / "out"), ("out",))


def pack(inputs: Inputs) -> Case:
    """`edge pack ort-text` of another bundle."""
    first, second = inputs.bundle(0), inputs.bundle(1)
    template = _template(inputs, "pack", lambda here: _pack(first, here / "out.onnx"))
    act: Callable[[Path], object] = lambda here: _pack(second, here / "out.onnx")  # noqa: E731
    return Case("pack", template, act, ("out.onnx",))


def convert(inputs: Inputs) -> Case:
    """`edge convert` of another checkpoint, to ONNX."""
    first, second = inputs.checkpoint(0), inputs.checkpoint(1)
    template = _template(inputs, "convert", lambda here: _convert(first, here / "out"))
    act: Callable[[Path], object] = lambda here: _convert(second, here / "out")  # noqa: E731
    return Case("convert", template, act, ("out",), comparable=_steady)


def distill(inputs: Inputs) -> Case:
    """`edge distill` with another seed, early stopping, and a state kept after every step."""

    def act(here: Path, seed: int = 1) -> None:
        _distill(inputs, here / "out", seed=seed)

    inputs.checkpoint()
    template = _template(inputs, "distill", lambda here: act(here, seed=2))
    return Case("distill", template, act, ("out",), comparable=_steady)


def benchmark(inputs: Inputs) -> Case:
    """`edge benchmark` of another bundle, with one worker process."""
    first, second = inputs.bundle(0), inputs.bundle(1)
    template = _template(inputs, "benchmark", lambda here: _benchmark(first, here / "out"))
    return Case(
        "benchmark",
        template,
        lambda here: _benchmark(second, here / "out"),
        ("out",),
        comparable=_unmeasured,
        judge=lambda here: _torn(here / "out"),
    )


def run(inputs: Inputs) -> Case:
    """`edge run` with another seed of the training."""
    inputs.checkpoint()
    template = _template(inputs, "run", lambda here: _run(inputs, here / "out", seed=2))
    return Case(
        "run",
        template,
        lambda here: _run(inputs, here / "out", seed=1),
        ("out/student", "out/bundle"),
        comparable=_unmeasured,
        judge=lambda here: _torn(here / "out"),
    )


CASES: dict[str, Callable[[Inputs], Case]] = {
    case.__name__: case for case in (storage, report, pack, convert, distill, benchmark, run)
}


def _template(inputs: Inputs, name: str, first: Callable[[Path], object]) -> Path:
    """A folder with the output that is there before, and a file of the user in and beside it."""

    def make(folder: Path) -> None:
        folder.mkdir()
        first(folder)

    folder = inputs.made(f"templates/{name}", make)
    (folder / "mine.txt").write_text("mine")
    return folder


def _store(here: Path, word: str) -> None:
    from edge.storage import output_lock, staged_file, staged_folder, write_text, write_together

    folder = here / "folder"
    with output_lock(folder), staged_folder(folder, replaces=lambda _: True) as stage:
        (stage / "deep").mkdir()
        (stage / "deep" / word).write_text(word)
        write_text(stage / "a", word)
    write_together(here / "together", {"a": word, "b": word})
    (here / "together" / "mine").mkdir(exist_ok=True)
    with staged_file(here / "file") as file:
        file.write_text(word)
        file.with_name("scratch").write_text(word)
    write_text(here / "text", word)


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
    from distill import DistillConfig, distil

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
    distil(DistillConfig.build(values))


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


def _steady(path: Path) -> bytes:
    """The content without times, and without hashes of what has times in it."""
    content = _VOLATILE.sub(b"", path.read_bytes())
    return _SEAL.sub(b"", content) if path.name == "edge.json" else content


def _unmeasured(path: Path) -> bytes:
    """As `_steady`, and without what a measurement differs in from run to run."""
    if path.name in _REPORT or path.name == "run.json":
        return b"measured"
    return _steady(path)


def _torn(output: Path) -> str | None:
    """What tells that the files of a report are not of one and the same report."""
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


def _made_rows(path: Path, latency_ms: float) -> None:
    """A file of rows as a benchmark writes them."""
    from benchmark.row_files import dump_rows

    path.parent.mkdir(exist_ok=True)
    row = _loaded("tests/benchmark/row_factory.py").made_row(ms=latency_ms)
    path.write_text(dump_rows([row]), encoding="utf-8")


def _models() -> ModuleType:
    return _loaded("tests/models.py")


def _loaded(name: str) -> ModuleType:
    """A helper of the tests, by its path: some libraries install a package called `tests`."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
