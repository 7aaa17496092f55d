"""Extractive question answering: the text is the question, its pair the context."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edge.data import Layout, Table, TargetColumn
from edge.data.values import row_error
from edge.errors import ConfigError, DataError
from edge.metrics import answer_scores
from edge.signature import TASK_OUTPUTS
from edge.tasks.base import Array, Examples, Outputs, Queries, Task, in_pieces
from edge.tokenization import Encoding, Tokenizer

_MAX_ANSWER_TOKENS = 30
# A long context is split into windows that overlap by a third: 128 of 384, as usual for SQuAD.
OVERLAP = 1 / 3
# A position after every context.
_NOWHERE = sys.maxsize


class QuestionAnswering(Task):
    """A start and an end logit for every token."""

    name = "question-answering"
    auto_class = "AutoModelForQuestionAnswering"
    outputs = TASK_OUTPUTS[name]
    takes_pairs = True
    layout = Layout(
        text=("question",),
        pair=("context",),
        target=("answers", "answer"),
        pair_needed=True,
        expects="question-answering needs columns question, context and answers, or SQuAD's JSON",
    )

    def answer(self, outputs: Outputs, encoding: Encoding) -> Array | None:
        return np.asarray([outputs["start_logits"].argmax(), outputs["end_logits"].argmax()])

    def predict(self, outputs: Outputs, encoding: Encoding, tokenizer: Tokenizer) -> dict[str, Any]:
        start, end, score = best_span(outputs["start_logits"], outputs["end_logits"], encoding)
        span: dict[str, Any] = {"start_token": start, "end_token": end, "score": score}
        if encoding.offsets:
            span["start"], span["end"] = encoding.offsets[start][0], encoding.offsets[end][1]
        return span

    def queries(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        tokenizer: Tokenizer,
        *,
        max_length: int,
    ) -> Queries:
        """Encode the windows of each context; the answer is the best span of all, or ""."""
        if pairs is None:
            raise ConfigError(
                "question-answering looks for answers in a context: give each text one"
            )
        contexts = pairs
        encodings, rows = in_pieces(tokenizer.encode_whole(texts, contexts), max_length, OVERLAP)

        def answers(outputs: Iterable[Outputs]) -> list[dict[str, Any]]:
            best: list[dict[str, Any]] = [{} for _ in texts]
            for row, encoding, output in zip(rows, encodings, outputs, strict=True):
                span = self.predict(output, encoding, tokenizer)
                if not best[row] or span["score"] > best[row]["score"]:
                    first, last = span["start"], span["end"]
                    text = contexts[row][first:last]
                    # Without token positions, which are relative to a window.
                    best[row] = {
                        "answer": text,
                        "start": first,
                        "end": last,
                        "score": span["score"],
                    }
            return best

        return Queries(encodings, answers)

    def examples(self, table: Table, tokenizer: Tokenizer, *, max_length: int) -> Examples:
        """Encode the rows as in `queries`, and compare with the accepted answers."""
        if table.pairs is None or table.targets is None:
            raise self.unfit(table, "there are no contexts with answers")
        accepted = self.accepted(table)
        queries = self.queries(table.texts, table.pairs, tokenizer, max_length=max_length)

        def score(outputs: Iterable[Outputs]) -> dict[str, float]:
            pairs = zip(queries.answers(outputs), accepted, strict=True)
            exact, f1 = np.mean([answer_scores(p["answer"], a) for p, a in pairs], axis=0)
            return {"f1": float(f1), "exact_match": float(exact)}

        return Examples(queries.encodings, score)

    def column(self, table: Table) -> TargetColumn | None:
        """Return the accepted answers of each row, with a warning for those not in the context."""
        if table.pairs is None or table.targets is None:
            return None
        accepted = self.accepted(table)
        spans = [
            answer_span(value, texts, context)
            for value, texts, context in zip(table.targets, accepted, table.pairs, strict=True)
        ]
        absent = [row for row, (span, _) in enumerate(spans) if span is None]
        moved = [row for row, (span, in_place) in enumerate(spans) if span and not in_place]
        warnings = []
        if absent:
            warnings.append(f"{_rows(table, absent)} an answer that is not in its context")
        if moved:
            warnings.append(
                f"{_rows(table, moved)} an answer that is not at its answer_start, counted in "
                "characters: the first place in the context is taken"
            )
        return TargetColumn(
            "answers", accepted, "texts in the contexts", {}, "; ".join(warnings) or None
        )

    def targets(self, table: Table) -> Array:
        """Raise DataError: answers are token spans of windows, not one target per row."""
        raise self.no_targets(table)

    def accepted(self, table: Table) -> list[list[str]]:
        """Return the accepted answers of each row, at least one."""
        accepted = []
        for row, value in enumerate(table.targets or ()):
            if isinstance(value, dict):
                value = value.get("text")
            candidates = [value] if isinstance(value, str) else value
            if not isinstance(candidates, list):
                raise self._row_error(table, row, f"has {str(value)[:40]!r} for its answers")
            context = table.pairs[row] if table.pairs is not None else ""
            if isinstance(value, str) and value not in context and _is_literal(value):
                raise self._row_error(table, row, f"has {value[:40]!r}, a list written as text")
            answers: list[Any] = [a.get("text") if isinstance(a, dict) else a for a in candidates]
            if not answers:
                raise self._row_error(table, row, "has no answer, which only SQuAD 2 allows")
            if not all(isinstance(answer, str) for answer in answers):
                raise self._row_error(table, row, "has an answer that is not text")
            if not all(answer.strip() for answer in answers):
                raise self._row_error(table, row, "has an empty answer")
            accepted.append(answers)
        return accepted

    def _row_error(self, table: Table, row: int, problem: str) -> DataError:
        return row_error(table, row, f"{problem}; {self.layout.expects}", "")


def answer_span(
    value: Any, texts: Sequence[str], context: str
) -> tuple[tuple[int, int] | None, bool]:
    """Return the characters (start, end) of an answer, and False if its answer_start is wrong.

    It is the first of `texts` at its answer_start in `value`, or else the first one anywhere in the
    context; None if there is none.
    """
    starts = _starts(value)
    for start, text in zip(starts, texts, strict=False):
        if text and context[start : start + len(text)] == text:
            return (start, start + len(text)), True
    places = ((context.find(text), len(text)) for text in texts if text)
    span = next(((start, start + size) for start, size in places if start >= 0), None)
    return span, not starts


def _starts(value: Any) -> list[int]:
    """Return the `answer_start` values of SQuAD and `datasets`, _NOWHERE for invalid ones."""
    if isinstance(value, dict):
        starts = value.get("answer_start")
    elif isinstance(value, list):
        starts = [v["answer_start"] for v in value if isinstance(v, dict) and "answer_start" in v]
    else:
        starts = None
    positions = starts if isinstance(starts, list) else [] if starts is None else [starts]
    return [s if isinstance(s, int) and s >= 0 else _NOWHERE for s in positions]


def _is_literal(text: str) -> bool:
    """Return True if a text is a Python or JSON literal of a list or dict."""
    try:
        return isinstance(ast.literal_eval(text.strip()), list | dict | tuple)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def _rows(table: Table, rows: Sequence[int]) -> str:
    """Describe rows by count and first location: "2 of 9 rows, such as line 3, row 2, have"."""
    if len(table) == 1:
        return "the only row has"
    verb = "have" if len(rows) > 1 else "has"
    return f"{len(rows):,} of {len(table):,} rows, such as {table.place(rows[0])}, {verb}"


def best_span(start: Array, end: Array, encoding: Encoding) -> tuple[int, int, float]:
    """Return the span in the context with the highest start + end logit, at most 30 tokens."""
    parts: Sequence[int | None] | None = encoding.parts or encoding.token_type_ids
    allowed = np.asarray([part == 1 for part in parts or [1] * len(encoding)])[: len(start)]
    if not allowed.any():
        return 0, 0, float(start[0] + end[0])
    pairs = start[:, None] + end[None, :]
    count = len(start)
    span = np.arange(count)[None, :] - np.arange(count)[:, None]
    valid = allowed[:, None] & allowed[None, :] & (span >= 0) & (span < _MAX_ANSWER_TOKENS)
    index = int(np.where(valid, pairs, -np.inf).argmax())
    first, last = divmod(index, count)
    return first, last, float(pairs[first, last])
