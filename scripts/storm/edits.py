"""Edit one input between two identical runs of `edge run`: no result may be stale.

    .venv/bin/python scripts/storm/edits.py [--work DIR] [--only WORD ...]

A tiny teacher and 24 rows go through `edge run` once. Each edit changes one place of a copy, which
the same command then runs again: a field of the recipe, a file that a field names, an output file
of an earlier part, a version. The part that the edit affects has to run again, or the command has
to refuse the edit. After edits without effect no part may run again. Every field that affects a
result needs an edit, so that a new one cannot be forgotten. Exits with 1 if a result is stale, if a
part runs again without need, or if a field has no edit. Takes ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
Edit = Callable[[Path], None]
_WORDS = ("film", "plot", "actor", "scene", "music", "long")
_LABELLED = (("fine", "great"), ("awful", "poor"))
_RECIPE: dict[str, Any] = {
    "name": "tiny",
    "distill": {
        "recipe": "training.yaml",
        "student": "layers=1",
        "max_length": 16,
        "unlabelled": "unlabelled.txt",
    },
    "convert": {
        "format": ["onnx"],
        "precision": ["fp32"],
        "seq_length": [16],
        "golden_texts": 2,
        "samples": "samples.tsv",
        "calibration": "calibration.tsv",
    },
    "benchmark": {
        "baseline": "baseline",
        "checkpoints": ["further"],
        "seq_length": 16,
        "data": "texts.tsv",
        "options": {},
        "protocol": {"min_runs": 2, "max_s": 1, "rounds": 2, "warmup_runs": 1, "warmup_s": 0},
    },
}
_TRAINING: dict[str, Any] = {
    "name": "training",
    "summary": "Two steps.",
    "stages": [
        {
            "max_steps": 2,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "terms": [{"match": "logits"}, {"match": "labels"}],
            "augment": [
                {"method": "unlabelled", "min_words": 1},
                {"method": "rules", "copies": 1, "lexicon": "lexicon.tsv"},
            ],
        }
    ],
}


@dataclass(frozen=True)
class Case:
    """An edit of the files. part: the first that has to run again, None for none."""

    name: str
    edit: Edit
    part: str | None


def make_world(folder: Path) -> None:
    """Write teacher, baseline, data and recipes; all their paths are relative to the folder."""
    for number, name in enumerate(("teacher", "baseline", "further")):
        _write_checkpoint(folder / name, seed=number)
    for number, name in enumerate(("train", "eval", "samples", "calibration", "texts", "device")):
        _write_rows(folder / f"{name}.tsv", seed=number)
    (folder / "unlabelled.txt").write_text("a fine film scene\nthe long plot\npoor music\n")
    (folder / "lexicon.tsv").write_text("film\tnoun\nplot\tnoun\nlong\tadjective\n")
    _write_yaml(folder / "training.yaml", _TRAINING)
    _write_yaml(folder / "run.yaml", _RECIPE)


def _write_yaml(file: Path, values: dict[str, Any]) -> None:
    # JSON is YAML.
    file.write_text(json.dumps(values, indent=1))


def _write_rows(file: Path, seed: int) -> None:
    lines = ["text\tlabel\tother"]
    for row in range(24):
        label = row % 2
        words = (_WORDS[(row + seed) % 6], _LABELLED[label][(row // 2) % 2], _WORDS[row % 5])
        lines.append(f"{' '.join(words)}\t{label}\t{words[0]} {words[1]}")
    file.write_text("\n".join(lines) + "\n")


def _write_checkpoint(folder: Path, seed: int) -> None:
    import torch
    import transformers

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the"]
    tokens += [*_WORDS, *(word for words in _LABELLED for word in words)]
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    transformers.BertTokenizerFast(
        vocab={token: number for number, token in enumerate(tokens)}, model_max_length=32
    ).save_pretrained(folder)


def run(folder: Path) -> str:
    """Run `edge run` in `folder`; return its log, with the error as a line."""
    from edge.errors import EdgeError
    from edge.pipeline.config import load_recipe
    from edge.pipeline.run import RunInputs
    from edge.pipeline.run import run as run_pipeline

    inputs = RunInputs(teacher="teacher", train="train.tsv", eval="eval.tsv", output=Path("out"))
    log = io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    with contextlib.redirect_stderr(log):
        try:
            run_pipeline(load_recipe("run.yaml"), inputs)
        except EdgeError as error:
            print(f"refused: {error}", file=sys.stderr)
        finally:
            os.chdir(before)
    return log.getvalue()


def settings(section: str, **values: Any) -> Edit:
    """Return an edit of values in a section of the run's recipe."""

    def edit(folder: Path) -> None:
        recipe = json.loads((folder / "run.yaml").read_text())
        recipe[section].update(values)
        _write_yaml(folder / "run.yaml", recipe)

    return edit


def training(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Edit:
    """Return an edit of the training recipe: `change` gets the recipe and its stage."""

    def edit(folder: Path) -> None:
        recipe = json.loads((folder / "training.yaml").read_text())
        change(recipe, recipe["stages"][0])
        _write_yaml(folder / "training.yaml", recipe)

    return edit


def stage(**values: Any) -> Edit:
    """Return an edit of values in the stage of the training recipe."""
    return training(lambda recipe, first_stage: first_stage.update(values))


def append(name: str, line: str) -> Edit:
    """Return an edit that adds a line to a file."""

    def edit(folder: Path) -> None:
        with (folder / name).open("a") as file:
            file.write(line + "\n")

    return edit


def row(name: str) -> Edit:
    """Return an edit that adds a row to a data file."""
    return append(name, "music great film\t0\tplot")


def reseed_weights(name: str) -> Edit:
    """Return an edit that gives a checkpoint other weights."""
    return lambda folder: _write_checkpoint(folder / name, seed=99)


def value(name: str, key: str, new: Any) -> Edit:
    """Return an edit of a value in a JSON file."""

    def edit(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        values[key] = new
        (folder / name).write_text(json.dumps(values))

    return edit


def flip(name: str) -> Edit:
    """Return an edit of a file's last byte."""

    def edit(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    return edit


def remove(name: str) -> Edit:
    """Return an edit that removes a file."""
    return lambda folder: (folder / name).unlink()


# The fields of each section that affect its result, each with another value or an edited file.
FIELDS: dict[str, dict[str, Edit]] = {
    "distill": {
        "teacher": reseed_weights("teacher"),
        "student": settings("distill", student="layers=2"),
        "assistants": settings("distill", assistants=["layers=2"]),
        "task": settings("distill", task="text-classification"),
        "train": row("train.tsv"),
        "eval": row("eval.tsv"),
        "recipe": stage(learning_rate=5e-2),
        "columns": settings("distill", columns={"text": "other"}),
        "unlabelled": append("unlabelled.txt", "a poor actor"),
        "teacher_cache": settings("distill", teacher_cache="kept"),
        "max_length": settings("distill", max_length=4),
        "epochs": settings("distill", epochs=1),
        "max_steps": settings("distill", max_steps=3),
        "batch_size": settings("distill", batch_size=4),
        "learning_rate": settings("distill", learning_rate=1e-2),
        "seed": settings("distill", seed=1),
        "bf16": settings("distill", bf16=True),
        "allow_pickle": settings("distill", allow_pickle=True),
        "trust_remote_code": settings("distill", trust_remote_code=True),
        "early_stopping": settings("distill", early_stopping=1),
        "baselines": settings("distill", baselines=True),
    },
    "convert": {
        "source": flip("out/student/model.safetensors"),
        "task": settings("convert", task="text-classification"),
        "format": settings("convert", format=["onnx", "tflite"]),
        "precision": settings("convert", precision=["fp16"]),
        "target": settings("convert", target=["portable"]),
        "shapes": settings("convert", shapes="enumerated"),
        "seq_length": settings("convert", seq_length=[8, 16]),
        "golden_texts": settings("convert", golden_texts=3),
        "verify": settings("convert", verify=False),
        "samples": row("samples.tsv"),
        "sample_count": settings("convert", sample_count=3),
        "calibration": row("calibration.tsv"),
        "calibration_count": settings("convert", calibration_count=3),
        "max_drop": settings("convert", max_drop=1.0),
        "pooling": settings("convert", pooling="cls"),
        "normalize": settings("convert", normalize=True),
        "columns": settings("convert", columns={"text": "other"}),
        "allow_pickle": settings("convert", allow_pickle=True),
        "trust_remote_code": settings("convert", trust_remote_code=True),
    },
    "benchmark": {
        "bundles": value("out/bundle/edge.json", "max_length", 8),
        "checkpoints": reseed_weights("further"),
        "baseline": reseed_weights("baseline"),
        "format": settings("benchmark", format=["onnx"]),
        "precision": settings("benchmark", precision=["fp32"]),
        "device": settings("benchmark", device="nowhere"),
        "options": settings("benchmark", options={"python": "python3.9"}),
        "threads": settings("benchmark", threads=2),
        "seq_length": settings("benchmark", seq_length=12),
        "batch": settings("benchmark", batch=2),
        "padding": settings("benchmark", padding="shortest"),
        "preset": settings("benchmark", preset="standard"),
        "protocol": settings("benchmark", protocol={"min_runs": 4, "max_s": 1, "rounds": 2}),
        "data": row("texts.tsv"),
        "eval": settings("benchmark", eval="device.tsv"),
        "profile": settings("benchmark", profile=True),
        "columns": settings("benchmark", columns={"text": "other"}),
        "seed": settings("benchmark", seed=1),
    },
}


def _version(name: str) -> Edit:
    def edit(folder: Path) -> None:
        (folder / "version").write_text(name)

    return edit


def more_cases() -> Iterator[Case]:
    """Yield edits inside recipes and checkpoints, of outputs and of versions."""
    inside = {
        "term weight": training(lambda _, first_stage: first_stage["terms"][0].update(weight=0.3)),
        "temperature": training(
            lambda _, first_stage: first_stage["terms"][0].update(temperature=4.0)
        ),
        "a term less": training(lambda _, first_stage: first_stage["terms"].pop()),
        "schedule": stage(schedule="constant"),
        "name": training(lambda recipe, _: recipe.update(name="other")),
        "augmentation": training(lambda _, first_stage: first_stage["augment"][1].update(copies=2)),
        "lexicon": append("lexicon.tsv", "music\tnoun"),
    }
    yield from (Case(f"recipe: {name}", edit, "distill") for name, edit in inside.items())
    teacher = {
        "config.json": value("teacher/config.json", "hidden_act", "relu"),
        "tokenizer.json": value("teacher/tokenizer_config.json", "model_max_length", 24),
        "weights": flip("teacher/model.safetensors"),
    }
    yield from (Case(f"teacher: {name}", edit, "distill") for name, edit in teacher.items())
    for name in ("model.safetensors", "config.json", "tokenizer.json", "distillation.json"):
        yield Case(f"student: {name} flipped", flip(f"out/student/{name}"), "distill")
        yield Case(f"student: {name} removed", remove(f"out/student/{name}"), "distill")
    for name in ("model-fp32.onnx", "edge.json", "golden.json", "tokenizer.json", "vocab.txt"):
        yield Case(f"bundle: {name} flipped", flip(f"out/bundle/{name}"), "convert")
        yield Case(f"bundle: {name} removed", remove(f"out/bundle/{name}"), "convert")
    yield Case("evaluation: rows", row("eval.tsv"), "evaluate")
    yield Case("run.json removed", lambda f: (f / "out/run.json").write_text("{}"), "distill")
    yield Case("version of the tool", _version("edge-encoders"), "distill")
    yield Case("version of transformers", _version("transformers"), "distill")
    yield Case("version of onnxruntime", _version("onnxruntime"), "convert")


def idle_cases() -> Iterator[Case]:
    """Yield edits that affect no result."""
    yield Case("nothing", lambda folder: None, None)
    yield Case("recipe: remark", append("training.yaml", "# a remark"), None)
    yield Case("recipe: summary", training(lambda r, _: r.update(summary="Other words.")), None)
    yield Case("moved train file", _move_train, None)
    yield Case("save_seconds", settings("distill", save_seconds=5), None)
    yield Case("threads of training", settings("distill", threads=1), None)
    yield Case("augment_folder", settings("distill", augment_folder="elsewhere"), None)
    yield Case("timeout_s", settings("benchmark", options={"timeout_s": 99}), None)
    yield Case("report removed", remove("out/report.html"), None)


def _move_train(folder: Path) -> None:
    (folder / "train.tsv").rename(folder / "moved.tsv")
    (folder / "train.tsv").symlink_to("moved.tsv")


def fields_without_edit() -> set[str]:
    """Return the fields that affect a result and have no edit above."""
    from benchmark.config import BenchmarkConfig
    from converters import ConvertConfig
    from distill import DistillConfig
    from edge.provenance import NO_EFFECT, rules_of

    models = {"distill": DistillConfig, "convert": ConvertConfig, "benchmark": BenchmarkConfig}
    return {
        f"{section}.{name}"
        for section, model in models.items()
        for name, rule in rules_of(model).items()
        if rule is not NO_EFFECT and name not in FIELDS[section]
    }


def cases() -> list[Case]:
    """Return all edits."""
    fields = [
        Case(f"{section}.{name}", edit, _affected_part(section, name))
        for section, edits in FIELDS.items()
        for name, edit in edits.items()
    ]
    return [*idle_cases(), *fields, *more_cases()]


def _affected_part(section: str, name: str) -> str:
    """Return the first part to run again after an edit of a field."""
    before = {"convert.source": "distill", "benchmark.bundles": "convert"}
    return before.get(f"{section}.{name}", section)


@contextlib.contextmanager
def _other_version(folder: Path) -> Iterator[None]:
    """Pretend that a library was upgraded, if the edit asks for it."""
    from edge import provenance

    file = folder / "version"
    if not file.is_file():
        yield
        return
    name, true_versions = file.read_text(), provenance.versions

    def versions(package: str) -> dict[str, str | None]:
        installed = true_versions(package)
        return {**installed, name: "99.0"} if name in installed else installed

    with contextlib.ExitStack() as stack:
        for module in ("edge.pipeline.run", "distill.prepare", "distill.augment.making"):
            stack.enter_context(mock.patch(f"{module}.versions", versions))
        yield


def classify(case: Case, log: str) -> str:
    """Return the outcome of an edit: done again, refused, kept, stale, repeated."""
    again = re.findall(r"^(\w+): done again", log, re.MULTILINE)
    if log.strip().splitlines()[-1:] and "refused: " in log:
        return "refused"
    if case.part is None:
        return "repeated" if again else "kept"
    # Without a ledger every part runs silently.
    unchanged = re.findall(r"^(\w+): done before, kept", log, re.MULTILINE)
    return "stale" if case.part in unchanged else "done again"


def main() -> int:
    """Read the command line, try every edit, and count the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--work", type=Path, help="folder to work in; a temporary one by default")
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name has one of these")
    options = parser.parse_args()
    chosen = [c for c in cases() if not options.only or any(w in c.name for w in options.only)]
    missing = fields_without_edit()
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        os.environ["EDGE_CACHE"] = str(Path(name) / "cache")
        outcomes = storm(Path(name), chosen)
    counts = {word: outcomes.count(word) for word in dict.fromkeys(outcomes)}
    print(f"{len(outcomes)} edits: {', '.join(f'{n} {word}' for word, n in counts.items())}")
    for field in sorted(missing):
        print(f"no edit of {field}")
    return int(bool(missing or {"stale", "repeated", "failed"} & {*outcomes}))


def storm(folder: Path, chosen: list[Case]) -> list[str]:
    """Run once, then each edit on a copy; print and return the outcome of each."""
    base = folder / "base"
    base.mkdir()
    make_world(base)
    log = run(base)
    assert (base / "out" / "rows.jsonl").is_file(), log
    outcomes = []
    for case in chosen:
        copy = folder / "copy"
        shutil.copytree(base, copy, symlinks=True)
        case.edit(copy)
        try:
            with _other_version(copy):
                log = run(copy)
            outcomes.append(classify(case, log))
        except Exception as error:
            outcomes.append("failed")
            log = f"{type(error).__name__}: {error}"
        markers = ("refused: ", "done again", ": ")
        lines = (line for word in markers for line in log.splitlines() if word in line)
        reason = next(lines, log)
        print(f"{outcomes[-1]:<11} {case.name:<32} {reason[:120]}", flush=True)
        shutil.rmtree(copy)
    return outcomes


if __name__ == "__main__":
    raise SystemExit(main())
