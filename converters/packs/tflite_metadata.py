"""The metadata that MediaPipe Tasks reads from a text classifier, and the files behind it.

The layout is that of `metadata_schema.fbs` in MediaPipe: a number below is the place of a field in
its table, or of a table in its union. The files are a zip archive, not compressed, after the model.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What the tensors are called in the metadata; MediaPipe looks for these three.
IDS, SEGMENTS, MASK = "ids", "segment_ids", "mask"
SCORES = "probability"
VOCABULARY_FILE = "vocab.txt"
LABELS_FILE = "labels.txt"

_IDENTIFIER = b"M001"
# The first version of the schema with tokenizers.
_PARSER_VERSION = "1.1.0"
_AXIS_LABELS, _VOCABULARY = 2, 5
_BERT_TOKENIZER = 4
_FEATURE = 1
_DESCRIPTIONS = {
    IDS: "Ids of the text's word pieces, between those of [CLS] and [SEP].",
    SEGMENTS: "0 for every word piece.",
    MASK: "1 for word pieces, 0 for padding.",
    SCORES: "The probability of each label.",
}


def classifier_metadata(name: str, inputs: Sequence[str], *, labels: bool) -> bytes:
    """Metadata of a BERT text classifier, its `inputs` in the order of the model's."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    label_files = [_file(builder, LABELS_FILE, _AXIS_LABELS)] if labels else []
    outputs = [_tensor(builder, SCORES, files=label_files)]
    vocabulary = _vector(builder, [_file(builder, VOCABULARY_FILE, _VOCABULARY)])
    options = _table(builder, 1, {0: vocabulary})
    tokenizer = _table(builder, 2, {1: options}, {0: _BERT_TOKENIZER})
    graph = {
        2: _vector(builder, [_tensor(builder, tensor) for tensor in inputs]),
        3: _vector(builder, outputs),
        5: _vector(builder, [tokenizer]),
    }
    model = {
        0: builder.CreateString(name),
        3: _vector(builder, [_table(builder, 10, graph)]),
        7: builder.CreateString(_PARSER_VERSION),
    }
    builder.Finish(_table(builder, 8, model), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def append_files(path: Path, files: Mapping[str, bytes]) -> None:
    """Append associated files to a model; the result is the same every time."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            # An entry made by hand has a fixed date.
            archive.writestr(zipfile.ZipInfo(name), content)


def _tensor(builder: Any, name: str, files: Sequence[int] = ()) -> int:
    feature = _table(builder, 0, {})
    fields = {
        0: builder.CreateString(name),
        1: builder.CreateString(_DESCRIPTIONS[name]),
        3: _table(builder, 3, {1: feature}, {0: _FEATURE}),
    }
    if files:
        fields[6] = _vector(builder, files)
    return _table(builder, 7, fields)


def _file(builder: Any, name: str, kind: int) -> int:
    return _table(builder, 5, {0: builder.CreateString(name)}, {2: kind})


def _table(
    builder: Any, size: int, offsets: Mapping[int, int], small: Mapping[int, int] | None = None
) -> int:
    """A table of `size` fields: references by place, and one-byte numbers by place."""
    builder.StartObject(size)
    for place, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(place, offset, 0)
    for place, number in (small or {}).items():
        builder.PrependUint8Slot(place, number, 0)
    return int(builder.EndObject())


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
