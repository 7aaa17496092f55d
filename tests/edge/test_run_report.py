from __future__ import annotations

from edge.evaluate import Evaluation
from edge.pipeline.run import with_accuracies
from tests.benchmark.row_factory import made_row


def test_two_targets_of_a_precision_have_an_accuracy_each() -> None:
    def evaluation(target: str, value: float) -> Evaluation:
        values = {"format": "onnx", "precision": "int8", "engine": "onnxruntime", "samples": 9}
        return Evaluation(**values, target=target, metric="accuracy", value=value)

    usual = made_row("student", "onnx", "int8")
    model = usual.model.model_copy(update={"target": "portable"})
    other = usual.model_copy(update={"model": model})
    baseline = made_row("bert", "onnx", "int8", role="baseline")
    rows = with_accuracies(
        [usual, other, baseline],
        [evaluation("onnxruntime", 0.9), evaluation("portable", 0.5)],
        reference=0.95,
    )
    values = [row.accuracy and (row.accuracy.value, row.accuracy.ref) for row in rows]
    assert values == [(0.9, 0.95), (0.5, 0.95), None]
