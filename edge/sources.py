"""Content hashes of data sources and checkpoints, for the fingerprints of `edge.provenance`.

Also the types of the configuration fields that name one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from edge.provenance import Counts, content
from edge.storage import sha256

_MODULES_FILE = "modules.json"
# Files beside a config.json given by itself: a tokenizer, and code.
_COMPANION_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".py", ".tiktoken")


def data_content(source: str | Path) -> Any:
    """Return the values that decide the rows of a data source: file type, split and hashes.

    Raises DataError when the source does not exist, as `edge.data.read_table` does.
    """
    path = Path(source)
    if path.is_file():
        # The file name extension decides how a file is read.
        return {"kind": "".join(path.suffixes[-2:]).lower(), "sha256": sha256(path)}
    name, _, split = str(source).partition(":")
    folder, _, config = name.partition("@")
    part: dict[str, Any] = {"config": config, "split": split}
    if Path(folder).is_dir():
        return {**part, "sha256": content(Path(folder))}
    from edge.data.hub import open_dataset

    loaded = open_dataset(str(source))
    files = [content(Path(file["filename"])) for file in loaded.cache_files]
    return {**part, "name": folder, "files": files or [str(loaded._fingerprint)]}


def checkpoint_content(source: str | Path) -> Any:
    """Return the hash of a checkpoint's files: a folder, a hub id, or a config.json by itself.

    For a folder, only its direct files and those of its modules count.
    Raises CheckpointError when it does not exist, as
    `edge.checkpoint.open_checkpoint` does.
    """
    from edge.checkpoint import locate

    path = Path(source)
    if path.is_file():
        siblings = _files(path.parent)
        companions = {f.name: f for f in siblings if f.suffix in _COMPANION_SUFFIXES}
        return _hash({**companions, "": path})
    folder = locate(str(source))
    parts = {".": folder, **{name: folder / name for name in _modules(folder)}}
    return _hash({f"{name}/{f.name}": f for name, part in parts.items() for f in _files(part)})


def _files(folder: Path) -> list[Path]:
    """Return the direct files of a folder, without hidden ones, which libraries ignore."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))


def _modules(folder: Path) -> list[str]:
    """Return the module folders of a sentence-transformers checkpoint."""
    try:
        entries = json.loads((folder / _MODULES_FILE).read_text(encoding="utf-8"))
        return [str(entry["path"]) for entry in entries if entry["path"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []  # a damaged file still enters by its content


def _hash(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, file in files.items():
        digest.update(f"{name}\0{content(file)}\n".encode())
    return digest.hexdigest()


# A data file, a `datasets` folder, or a `datasets` name.
DataSource = Annotated[str, Counts(data_content)]
DataPath = Annotated[str | Path, Counts(data_content)]
# A checkpoint folder or hub id.
CheckpointSource = Annotated[str, Counts(checkpoint_content)]
CheckpointPath = Annotated[Path, Counts(checkpoint_content)]
