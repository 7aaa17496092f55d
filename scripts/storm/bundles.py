"""Damage every file of a bundle and every field of its JSON; no output may change.

    python -m scripts.storm.bundles BUNDLE [--seeds 20]

A damaged bundle has to be refused as a user's mistake, or give the same outputs. A bundle with
checksums corrected after the damage may change its outputs, or be refused with any one-line error.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge.bundle import Bundle
from edge.bundle.folder import digest_of
from edge.errors import EdgeError, UserError
from edge.predict import predict
from edge.storage import sha256, size_bytes

Damage = tuple[str, Callable[[Path], object]]
TEXTS = ("the film was great", "a bad plot", "")
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 1 << 40, 1.5, float("nan"), float("inf"), "", "x", "x\x1b[31m\n"),
    *([], {}, [[]], [0], ["input_ids"], [32, 16], "0" * 64, "../x", "regression", "sigmoid"),
)


def file_damages(bundle: Path, *, seeds: int) -> Iterator[Damage]:
    """Yield flipped, truncated, emptied, lengthened, swapped and missing files, also in folders."""
    files = [path.relative_to(bundle) for path in sorted(bundle.rglob("*")) if path.is_file()]
    for name in files:
        for seed in range(seeds):
            yield f"{name}: bit {seed}", lambda folder, n=name, s=seed: _flip(folder / n, s)
            yield f"{name}: cut {seed}", lambda folder, n=name, s=seed: _cut(folder / n, s)
        yield f"{name}: empty", lambda folder, n=name: (folder / n).write_bytes(b"")
        yield f"{name}: longer", lambda folder, n=name: _append(folder / n)
        yield f"{name}: missing", lambda folder, n=name: (folder / n).unlink()
        yield f"{name}: folder", lambda folder, n=name: _to_folder(folder / n)
        for other in files:
            if other != name:
                yield (
                    f"{name}: content of {other}",
                    lambda folder, n=name, o=other: shutil.copyfile(bundle / o, folder / n),
                )


def field_damages(bundle: Path, file: str, *, reseal: bool) -> Iterator[Damage]:
    """Yield each field of a JSON file with other values, missing, and beside an unknown field.

    reseal: correct the checksums afterwards, so that only the values are wrong.
    """
    values = json.loads((bundle / file).read_text(encoding="utf-8"))
    for path in _paths(values):
        at = ".".join(map(str, path))
        for change in (*_VALUES, _missing, _unknown, _repeated):
            edited = copy.deepcopy(values)
            if _edit(edited, path, change):
                title = getattr(change, "__name__", repr(change))
                yield (
                    f"{file} {at}: {title}",
                    lambda folder, v=edited: _write(folder, file, v, reseal),
                )


def read_fault(folder: Path, expected: object) -> str | None:
    """Return the fault of reading a damaged bundle; None if it is refused or its output equal."""
    try:
        outputs = read_outputs(folder)
    except UserError as error:
        return "several lines" if "\n" in str(error) else None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None if outputs == expected else "another answer"


def resealed_fault(folder: Path) -> str | None:
    """Return the fault of reading a resealed bundle, whose output may differ."""
    try:
        read_outputs(folder)
    except EdgeError as error:
        return "several lines" if "\n" in str(error) else None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def read_outputs(folder: Path) -> object:
    """Return a bundle's outputs: predictions of every artifact, golden texts, vocabulary."""
    bundle = Bundle.open(folder)
    cases = [case.to_json() for case in bundle.golden_cases()]
    formats = sorted({a.format for a in bundle.manifest.artifacts} - {"coreml"})
    predictions = predict(bundle, TEXTS, formats=formats)
    vocabulary = bundle.manifest.tokenizer.vocabulary
    words = None if vocabulary is None else bundle.file(vocabulary).read_text(encoding="utf-8")
    return [cases, [row.model_dump() for row in predictions], words]


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each field; of a list's entries the first and the last."""
    if before:
        yield before
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _paths(part, (*before, key))
    elif isinstance(value, list):
        for index in sorted({0, len(value) - 1} if value else set()):
            yield from _paths(value[index], (*before, index))


def _edit(values: Any, path: tuple[Any, ...], change: Any) -> bool:
    """Change a field in place; return False if its value stays the same."""
    for part in path[:-1]:
        values = values[part]
    last = path[-1]
    before = json.dumps(values)
    if callable(change):
        change(values, last)
    else:
        values[last] = change
    return json.dumps(values) != before


def _missing(values: Any, key: Any) -> None:
    del values[key]


def _unknown(values: Any, key: Any) -> None:
    if isinstance(values, dict):
        values[f"{key}_too"] = values[key]


def _repeated(values: Any, key: Any) -> None:
    if isinstance(values[key], list):
        values[key] = values[key] * 2


def _write(folder: Path, file: str, values: Any, reseal: bool) -> None:
    (folder / file).write_text(json.dumps(values), encoding="utf-8")
    if reseal:
        seal(folder)


def seal(folder: Path) -> None:
    """Write the current checksums of all files, and its own, into `edge.json`."""
    file = folder / "edge.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    try:
        values["golden"]["sha256"] = sha256(folder / values["golden"]["file"])
        values["tokenizer"]["sha256"] = sha256(folder / values["tokenizer"]["file"])
        if values["tokenizer"]["vocabulary_sha256"] is not None:
            vocabulary = folder / values["tokenizer"]["vocabulary"]
            values["tokenizer"]["vocabulary_sha256"] = sha256(vocabulary)
        for artifact in values["artifacts"]:
            artifact["sha256"] = sha256(folder / artifact["file"])
            artifact["bytes"] = size_bytes(folder / artifact["file"])
    except (KeyError, TypeError, OSError, ValueError):
        pass  # what was damaged cannot be sealed, and is refused for that
    if isinstance(values, dict):
        values["sha256"] = digest_of(values)
    file.write_text(json.dumps(values), encoding="utf-8")


def _flip(file: Path, seed: int) -> None:
    data = bytearray(file.read_bytes())
    data[random.Random(seed).randrange(len(data))] ^= 1 << seed % 8
    file.write_bytes(data)


def _cut(file: Path, seed: int) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: random.Random(seed).randrange(len(data))])


def _append(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\n")


def _to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def main() -> int:
    """Try every damage; return 1 if one is a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seeds", type=int, default=20, help="Places a file is damaged at.")
    options = parser.parse_args()
    expected = read_outputs(options.bundle)
    sealed = [*file_damages(options.bundle, seeds=options.seeds)]
    sealed += field_damages(options.bundle, "edge.json", reseal=False)
    sealed += field_damages(options.bundle, "golden.json", reseal=False)
    resealed = [*field_damages(options.bundle, "edge.json", reseal=True)]
    resealed += field_damages(options.bundle, "golden.json", reseal=True)
    faults = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        for number, (name, damage) in enumerate([*sealed, *resealed]):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(options.bundle, folder)
            damage(folder)
            fault = read_fault(folder, expected) if number < len(sealed) else resealed_fault(folder)
            if fault:
                faults += 1
                print(f"{name}: {fault}")
    print(f"{len(sealed)} damages, {len(resealed)} with right checksums: {faults} faults")
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
