"""One label a token, e.g. named entities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edge.data import Layout, Table
from edge.metrics import entity_f1, split_tag
from edge.tasks.base import Array, Examples, Outputs, Task, in_pieces, softmax
from edge.tokenization import Encoding, Tokenizer

# A sentence that is too long runs in pieces; words at the start of one need what is before them.
OVERLAP = 0.25


class TokenClassification(Task):
    """Logits for every token."""

    name = "token-classification"
    auto_class = "AutoModelForTokenClassification"
    outputs = {"logits": ("batch", "sequence", "labels")}
    activation = "softmax"
    layout = Layout(
        text=("tokens", "words"),
        pair=(),
        target=("tags", "ner_tags", "labels"),
        words=True,
        expects="token-classification needs columns tokens and tags, of lists, or a .conll file",
    )

    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        answer: Array = outputs["logits"].argmax(-1)
        return answer

    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        chances = softmax(outputs["logits"])
        best = chances.argmax(-1)
        names = self.labels or tuple(str(i) for i in range(chances.shape[-1]))
        tokens = []
        for position, index in enumerate(encoding.input_ids[: len(best)]):
            if encoding.special and encoding.special[position]:
                continue
            label = int(best[position])
            record: dict[str, Any] = {"token": tokenizer.token(index), "label": names[label]}
            record["score"] = float(chances[position, label])
            if encoding.offsets:
                record["start"], record["end"] = encoding.offsets[position]
            tokens.append(record)
        return {"tokens": tokens}

    def examples(self, table: Table, tokenizer: Tokenizer, *, max_length: int) -> Examples:
        """Each word is judged by its first token; one without tokens counts as "O"."""
        words = table.words
        if words is None or table.targets is None:
            raise self.unfit(table, "there are no words with tags")
        targets = self.tags(table, words)
        encodings, rows = in_pieces(tokenizer.encode_words(words), max_length, OVERLAP)

        def score(outputs: Iterable[Outputs]) -> dict[str, float]:
            predicted = [["O"] * len(tags) for tags in targets]
            seen: set[tuple[int, int]] = set()
            for row, encoding, output in zip(rows, encodings, outputs, strict=True):
                best = output["logits"].argmax(-1)
                for position, word in enumerate(encoding.words or ()):
                    if word is not None and (row, word) not in seen:
                        seen.add((row, word))
                        predicted[row][word] = self._label(int(best[position]))
            return self._scores(predicted, targets)

        return Examples(encodings, score)

    def _scores(self, predicted: list[list[str]], targets: list[list[str]]) -> dict[str, float]:
        pairs = zip(predicted, targets, strict=True)
        equal = [a == b for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True)]
        accuracy = {"accuracy": float(np.mean(equal))}
        if self.labels is not None and "O" not in self.labels:
            return accuracy  # parts of speech and the like: every word has its own label
        f1, precision, recall = entity_f1(predicted, targets)
        return {"f1": f1, "precision": precision, "recall": recall, **accuracy}

    def _label(self, index: int) -> str:
        return self.labels[index] if self.labels else str(index)

    def tags(self, table: Table, words: list[list[str]]) -> list[list[str]]:
        """The tags of each row by name, checked against words and labels."""
        labels = self.labels or ()
        kinds = {split_tag(label)[1] for label in labels}
        # Classes under other names, as many of them, are the model's in their order.
        names = table.target_names
        strange = names is not None and not {split_tag(name)[1] for name in names} <= kinds
        if names is None or (strange and len(names) == len(labels)):
            names = labels
        found = []
        for number, (row, tags) in enumerate(zip(words, table.targets or (), strict=True), 1):
            if not isinstance(tags, list):
                raise self.unfit(table, f"row {number} has {str(tags)[:40]!r} for its tags")
            if len(tags) != len(row):
                raise self.unfit(table, f"row {number} has {len(row)} tokens and {len(tags)} tags")
            found.append([_named(tag, names) for tag in tags])
            for tag in found[-1]:
                kind = split_tag(tag)[1]
                if kind not in kinds and kind:
                    raise self.unfit(
                        table,
                        f"row {number}: tag {tag!r} is not one of the model's "
                        f"({', '.join(labels)})",
                    )
        return found


def _named(tag: Any, names: tuple[str, ...]) -> str:
    """A tag as text: names as they are, integers as indices of classes."""
    if isinstance(tag, int) and 0 <= tag < len(names):
        return names[tag]
    return str(tag)
