"""Extractive question answering: the text is the question, its pair the context."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edge.data import Layout, Table
from edge.data.values import refused
from edge.errors import ConfigError, DataError
from edge.metrics import answer_scores
from edge.signature import TASK_OUTPUTS
from edge.tasks.base import Array, Examples, Outputs, Queries, Task, in_pieces
from edge.tokenization import Encoding, Tokenizer

_MAX_ANSWER_TOKENS = 30
# A context that is too long runs in pieces that share a third: 128 of 384, as is usual for SQuAD.
OVERLAP = 1 / 3


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
        """The answer is the best span over all pieces of a context, "" where it is empty."""
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
                    # Not the tokens, whose numbers are those of a piece.
                    best[row] = {
                        "answer": text,
                        "start": first,
                        "end": last,
                        "score": span["score"],
                    }
            return best

        return Queries(encodings, answers)

    def examples(self, table: Table, tokenizer: Tokenizer, *, max_length: int) -> Examples:
        """As `queries` answers."""
        if table.pairs is None or table.targets is None:
            raise self.unfit(table, "there are no contexts with answers")
        accepted = self.accepted(table)
        queries = self.queries(table.texts, table.pairs, tokenizer, max_length=max_length)

        def score(outputs: Iterable[Outputs]) -> dict[str, float]:
            pairs = zip(queries.answers(outputs), accepted, strict=True)
            exact, f1 = np.mean([answer_scores(p["answer"], a) for p, a in pairs], axis=0)
            return {"f1": float(f1), "exact_match": float(exact)}

        return Examples(queries.encodings, score)

    def accepted(self, table: Table) -> list[list[str]]:
        """The answers of each row, at least one."""
        accepted = []
        for row, value in enumerate(table.targets or ()):
            if isinstance(value, dict):
                value = value.get("text")
            several = [value] if isinstance(value, str) else value
            if not isinstance(several, list):
                raise self._refused(table, row, f"has {str(value)[:40]!r} for its answers")
            answers: list[Any] = [a.get("text") if isinstance(a, dict) else a for a in several]
            if not answers:
                raise self._refused(table, row, "has no answer, which only SQuAD 2 allows")
            if not all(isinstance(answer, str) for answer in answers):
                raise self._refused(table, row, "has an answer that is not text")
            if not all(answer.strip() for answer in answers):
                raise self._refused(table, row, "has an empty answer")
            accepted.append(answers)
        return accepted

    def _refused(self, table: Table, row: int, problem: str) -> DataError:
        return refused(table, row, f"{problem}; {self.layout.expects}", "")


def best_span(start: Array, end: Array, encoding: Encoding) -> tuple[int, int, float]:
    """The span in the second part with the highest start + end logit, at most 30 tokens long."""
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
