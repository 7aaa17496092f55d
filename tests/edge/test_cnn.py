"""The text CNN: padding changes nothing, Transformers loads it, and every format agrees with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.checkpoint import load_model, open_checkpoint

LENGTHS = (9, 1, 5, 12)


def _model(kind: str = "CNNModel", **changes: Any) -> Any:
    import torch

    from edge.models import cnn

    sizes = {"vocab_size": 111, "embedding_size": 12, "filters": 8, "kernel_widths": (2, 3, 4)}
    config = cnn.CNNConfig(**{**sizes, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(cnn, kind)(config).eval()


def _batch() -> Any:
    import torch

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 111, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).to(torch.int32)
    return ids * mask, mask


def test_states_are_those_of_windows_written_out() -> None:
    import torch

    model = _model()
    ids, mask = _batch()
    with torch.no_grad():
        found = model(ids, mask)
        for row, length in enumerate(LENGTHS):
            words, expected = model.embeddings(ids[row, :length]), []
            for convolution in model.convolutions:
                width = convolution.kernel_size[0]
                weight = convolution.weight.transpose(1, 2).flatten(1)
                before = (width - 1) // 2
                ends = [torch.zeros(n, 12) for n in (before, width - 1 - before)]
                padded = torch.cat([ends[0], words, ends[1]])
                windows = torch.stack([padded[i : i + width].flatten() for i in range(length)])
                expected.append((windows @ weight.T + convolution.bias).relu())
            states = torch.cat(expected, 1)
            torch.testing.assert_close(found.last_hidden_state[row, :length], states)
            assert not found.last_hidden_state[row, length:].any()
            torch.testing.assert_close(found.pooler_output[row], states.amax(0))


def test_what_stands_in_padding_does_not_matter() -> None:
    import torch

    model = _model("CNNForSequenceClassification", num_labels=3)
    ids, mask = _batch()
    other = torch.where(mask == 1, ids, torch.full_like(ids, 7))
    with torch.no_grad():
        assert torch.equal(model(ids, mask).logits, model(other, mask).logits)
        row = ids[2:3, :5]
        torch.testing.assert_close(model(row).logits, model(ids, mask).logits[2:3])


def test_it_learns_by_the_loss_of_its_labels() -> None:
    import torch

    model = _model("CNNForSequenceClassification", num_labels=3, hidden_dropout_prob=0.0)
    ids, mask = _batch()
    labels = torch.tensor([0, 1, 2, 1])
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    found = model(ids, mask, labels=labels, output_hidden_states=True)
    torch.testing.assert_close(found.loss, torch.nn.functional.cross_entropy(found.logits, labels))
    assert [state.shape[-1] for state in found.hidden_states] == [12, 24]
    found.loss.backward()
    optimizer.step()
    assert model(ids, mask, labels=labels).loss < found.loss
    assert not model.cnn.embeddings.weight.grad[0].any()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models import tiny_tokenizer

    folder = tmp_path_factory.mktemp("cnn")
    model = _model(
        "CNNForSequenceClassification", id2label={0: "a", 1: "b"}, max_position_embeddings=64
    )
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    return folder


def test_a_checkpoint_loads(checkpoint: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    opened = open_checkpoint(checkpoint)
    assert (opened.task.name, opened.labels) == ("text-classification", ("a", "b"))
    loaded = load_model(opened)
    assert type(loaded).__name__ == "CNNForSequenceClassification"
    assert list(loaded.config.kernel_widths) == [2, 3, 4]
    again = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    for name, value in again.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_every_format_agrees(checkpoint: Path, tmp_path: Path) -> None:
    from converters import ConvertConfig, convert

    manifest = convert(
        ConvertConfig(source=str(checkpoint), output=tmp_path / "bundle", seq_length=(16, 32))
    )
    assert {artifact.format for artifact in manifest.artifacts} == {"onnx", "tflite", "coreml"}
    for artifact in manifest.artifacts:
        assert artifact.verification is not None
        error = artifact.verification.max_relative_error
        assert error is not None
        assert error < {"fp32": 1e-5, "fp16": 5e-3}.get(artifact.precision, 0.1)
