"""One label per token, e.g. named entities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edge.data import Layout, Table, TargetColumn
from edge.data.tags import tag_column
from edge.data.values import row_error
from edge.metrics import entity_f1, split_tag
from edge.signature import TASK_OUTPUTS
from edge.tasks.base import Array, Examples, Outputs, Task, in_pieces, softmax
from edge.tokenization import Encoding, Tokenizer

# A long sentence is split into windows; the overlap gives context to the first words of one.
OVERLAP = 0.25


class TokenClassification(Task):
    """Logits for every token."""

    name = "token-classification"
    auto_class = "AutoModelForTokenClassification"
    outputs = TASK_OUTPUTS[name]
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
        probabilities = softmax(outputs["logits"])
        best = probabilities.argmax(-1)
        names = self.labels or tuple(str(i) for i in range(probabilities.shape[-1]))
        tokens = []
        for position, index in enumerate(encoding.input_ids[: len(best)]):
            if encoding.special and encoding.special[position]:
                continue
            label = int(best[position])
            record: dict[str, Any] = {"token": tokenizer.token(index), "label": names[label]}
            record["score"] = float(probabilities[position, label])
            if encoding.offsets:
                record["start"], record["end"] = encoding.offsets[position]
            tokens.append(record)
        return {"tokens": tokens}

    def examples(self, table: Table, tokenizer: Tokenizer, *, max_length: int) -> Examples:
        """Encode the rows; the label of a word is that of its first token, "O" without tokens."""
        words = table.words
        if words is None or table.targets is None:
            raise self.unfit(table, "there are no words with tags")
        targets = self.tags(table)
        if not any(targets):
            raise self.unfit(table, "every row is empty")
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
        equal = [a == b for tags, gold in pairs for a, b in zip(tags, gold, strict=True)]
        accuracy = {"accuracy": float(np.mean(equal))}
        if self.labels is not None and "O" not in self.labels:
            return accuracy  # parts of speech and the like: every word has its own label
        f1, precision, recall = entity_f1(predicted, targets)
        return {"f1": f1, "precision": precision, "recall": recall, **accuracy}

    def _label(self, index: int) -> str:
        return self.labels[index] if self.labels else str(index)

    def column(self, table: Table) -> TargetColumn:
        """Return the tags of each row by name, checked against words and labels."""
        assert table.words is not None
        labels, expects = self.labels or (), self.layout.expects or ""
        column = tag_column(table, table.words, labels, expects=expects)
        kinds = {split_tag(label)[1] for label in labels}
        prefixed = any("-" in label and split_tag(label)[0] for label in labels)
        schemes: dict[str, str] = {}
        seen: set[str] = set()
        for row, tags in enumerate(column.values):
            for word, tag in enumerate(tags):
                if tag in seen:
                    continue
                seen.add(tag)
                prefix, kind = split_tag(tag)
                if tag != "O" and not kind:
                    raise row_error(table, row, f"tag {tag!r} has no kind; {expects}", word=word)
                if kind and kind not in kinds:
                    known = f"is not one of the model's ({', '.join(labels)})"
                    raise row_error(table, row, f"tag {tag!r} {known}; {expects}", word=word)
                if not prefixed or not kind:
                    continue
                schemes.setdefault("" if tag == kind else prefix, tag)
                if conflict := _two_schemes(schemes):
                    first, second = conflict
                    problem = f"tags {first!r} and {second!r} are of two schemes: write all in one"
                    raise row_error(table, row, problem, word=word)
        return column

    def tags(self, table: Table) -> list[list[str]]:
        """Return the tags of each row by name; raises DataError if they do not fit."""
        values: list[list[str]] = self.column(table).values
        return values


def _two_schemes(tags: dict[str, str]) -> tuple[str, str] | None:
    """Return two tags of different schemes (IOBES, BILOU, no prefix), from tags by prefix."""
    for prefixes, others in ((("",), tuple("BIESLU")), (("E", "S"), ("L", "U"))):
        first = next((tags[prefix] for prefix in prefixes if prefix in tags), None)
        second = next((tags[other] for other in others if other in tags), None)
        if first is not None and second is not None:
            return first, second
    return None
