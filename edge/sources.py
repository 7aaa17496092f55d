"""What a data source or a checkpoint holds, told by content: files, folders, hub ids, data sets.

The types of configuration fields that name one, see `edge.provenance`.
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
# What lies beside a config.json that is used alone: a tokenizer, and code.
_BESIDE = (".json", ".txt", ".model", ".jinja", ".py", ".tiktoken")


def data_content(source: str | Path) -> Any:
    """What decides the rows of a data source: a file and its kind, a folder, or a data set's files.

    Raises DataError when there is none, as `edge.data.read_table` does.
    """
    path = Path(source)
    if path.is_file():
        # The ending of its name says how a file is read.
        return {"kind": "".join(path.suffixes[-2:]).lower(), "sha256": sha256(path)}
    name, _, split = str(source).partition(":")
    folder, _, config = name.partition("@")
    found: dict[str, Any] = {"config": config, "split": split}
    if Path(folder).is_dir():
        return {**found, "sha256": content(Path(folder))}
    from edge.data.hub import open_dataset

    loaded = open_dataset(str(source))
    files = [content(Path(file["filename"])) for file in loaded.cache_files]
    return {**found, "name": folder, "files": files or [str(loaded._fingerprint)]}


def checkpoint_content(source: str | Path) -> Any:
    """Hash of the files of a checkpoint: a folder, a hub id, or a config.json alone.

    Of a folder its own files and those of its modules count, not what else lies in it.
    Raises CheckpointError when there is none, as `edge.checkpoint.checkpoint.open_checkpoint` does.
    """
    from edge.checkpoint.checkpoint import locate

    path = Path(source)
    if path.is_file():
        beside = {one.name: one for one in _files(path.parent) if one.suffix in _BESIDE}
        return _hash({**beside, "": path})
    folder = locate(str(source))
    parts = {".": folder, **{name: folder / name for name in _modules(folder)}}
    return _hash({f"{name}/{f.name}": f for name, part in parts.items() for f in _files(part)})


def _files(folder: Path) -> list[Path]:
    """The files of a folder that libraries look at: hidden ones are of other programs."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))


def _modules(folder: Path) -> list[str]:
    """The folders in it that a sentence-transformers checkpoint consists of."""
    try:
        entries = json.loads((folder / _MODULES_FILE).read_text(encoding="utf-8"))
        return [str(entry["path"]) for entry in entries if entry["path"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []  # a damaged file counts by its own content


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
