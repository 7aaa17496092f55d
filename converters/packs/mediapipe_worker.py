"""What the child process that runs MediaPipe's TextClassifier answers.

It is loaded by `edge.process.wire` under the Python of MediaPipe's own environment, which has
nothing of this project: it imports nothing else that is not there, and keeps to Python 3.9.
Requests are "open" and "classify".
"""

from __future__ import annotations

from typing import Any

import numpy as np

Arrays = dict[str, Any]


class Worker:
    """At most one open classifier, and the requests it answers."""

    def __init__(self) -> None:
        self._classifier: Any = None

    def answer(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """The reply to one request, and the scores of a text."""
        if request["do"] == "open":
            self._open(request["path"])
            return {}, {}
        if self._classifier is None:
            raise ValueError("no file is open")
        return {}, {"scores": self._classify(request["text"])}

    def _open(self, path: str) -> None:
        from mediapipe.tasks.python.text import TextClassifier

        self._classifier = TextClassifier.create_from_model_path(path)

    def _classify(self, text: str) -> Any:
        """Scores in the order of the model's output; MediaPipe gives them by rank."""
        (head,) = self._classifier.classify(text).classifications
        scores = np.zeros(1 + max((c.index for c in head.categories), default=-1), np.float32)
        for category in head.categories:
            scores[category.index] = category.score
        return scores
