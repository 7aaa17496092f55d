"""The BiLSTM: padding changes nothing, Transformers loads it, and exported forms agree with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.checkpoint import count_parameters, load_model, open_checkpoint
from edge.errors import CheckpointError

LENGTHS = (9, 1, 5, 12)
TASKS = {
    "text-classification": "BiLSTMForSequenceClassification",
    "token-classification": "BiLSTMForTokenClassification",
    "question-answering": "BiLSTMForQuestionAnswering",
    "fill-mask": "BiLSTMForMaskedLM",
    "feature-extraction": "BiLSTMModel",
}


def _model(layers: int = 1, kind: str = "BiLSTMModel", **changes: Any) -> Any:
    import torch

    from edge.models import bilstm

    sizes = {"vocab_size": 50, "embedding_size": 12, "lstm_size": 8, "classifier_size": 10}
    config = bilstm.BiLSTMConfig(num_hidden_layers=layers, **{**sizes, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(bilstm, kind)(config)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def _batch() -> Any:
    import torch

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).to(torch.int32)
    return ids * mask, mask


def _packed(model: Any, ids: Any, lengths: Any) -> Any:
    """States and final states of torch's own bidirectional LSTM over packed rows."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    states = model.embeddings(ids)
    final = None
    for layer in model.layers:
        both = torch.nn.LSTM(
            layer.ahead.input_size, layer.ahead.hidden_size, batch_first=True, bidirectional=True
        )
        weights = {**layer.ahead.state_dict()}
        weights |= {f"{name}_reverse": value for name, value in layer.behind.state_dict().items()}
        both.load_state_dict(weights)
        packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
        states, (final, _) = both(packed)
        states = pad_packed_sequence(states, batch_first=True)[0]
    assert final is not None
    return states, torch.cat([final[0], final[1]], -1)


@pytest.mark.parametrize("layers", [1, 3])
def test_answers_are_those_of_packed_rows(layers: int) -> None:
    import torch

    model = _model(layers)
    ids, mask = _batch()
    with torch.no_grad():
        found = model(ids, mask)
        states, final = _packed(model, ids, torch.tensor(LENGTHS))
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(
            found.last_hidden_state[row, :length], states[row, :length], rtol=0, atol=1e-6
        )
    torch.testing.assert_close(found.pooler_output, final, rtol=0, atol=1e-6)


def test_what_stands_in_padding_does_not_matter() -> None:
    import torch

    model = _model(2)
    ids, mask = _batch()
    other = torch.where(mask == 1, ids, torch.full_like(ids, 7))
    assert not torch.equal(ids, other)
    with torch.no_grad():
        first, second = model(ids, mask), model(other, mask)
    assert torch.equal(first.pooler_output, second.pooler_output)
    real = mask.bool()
    assert torch.equal(first.last_hidden_state[real], second.last_hidden_state[real])


def test_without_a_mask_every_token_counts() -> None:
    import torch

    model = _model()
    ids, _ = _batch()
    with torch.no_grad():
        found = model(ids).pooler_output
        assert torch.equal(found, model(ids, torch.ones_like(ids)).pooler_output)


def test_mirrors_reverse_the_real_tokens_only() -> None:
    import torch

    from edge.models.recurrence import mirror

    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    rows = torch.tensor([[1.5, 2.5, 3.5, 9.0], [4.5, 9.0, 9.0, 9.0]])
    mirrored = mirror(mask, torch.float32) @ rows[..., None]
    assert mirrored[..., 0].tolist() == [[3.5, 2.5, 1.5, 0.0], [4.5, 0.0, 0.0, 0.0]]


def test_both_directions_learn() -> None:
    import torch

    model = _model(2, "BiLSTMForSequenceClassification", num_labels=3, hidden_dropout_prob=0.0)
    ids, mask = _batch()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    labels = torch.tensor([0, 1, 2, 1])
    first = model(ids, mask, labels=labels)
    expected = torch.nn.functional.cross_entropy(first.logits, labels)
    torch.testing.assert_close(first.loss, expected)
    first.loss.backward()
    optimizer.step()
    assert all(not torch.equal(before[n], value) for n, value in model.named_parameters())
    # The row of the padding token is not looked up by any real token.
    assert torch.equal(before["bilstm.embeddings.weight"][0], model.bilstm.embeddings.weight[0])
    assert model(ids, mask, labels=labels).loss < first.loss


def test_losses_leave_out_what_is_labelled_so() -> None:
    import torch

    ids, mask = _batch()
    labels = torch.where(mask == 1, ids % 3, -100)
    real = mask.bool()
    for kind in ("BiLSTMForTokenClassification", "BiLSTMForMaskedLM"):
        found = _model(1, kind, num_labels=3)(ids, mask, labels=labels)
        expected = torch.nn.functional.cross_entropy(found.logits[real], labels[real])
        torch.testing.assert_close(found.loss, expected)
    found = _model(1, "BiLSTMForQuestionAnswering")(
        ids, mask, start_positions=torch.zeros(4).long(), end_positions=torch.ones(4).long()
    )
    expected = torch.stack(
        [
            torch.nn.functional.cross_entropy(found.start_logits, torch.zeros(4).long()),
            torch.nn.functional.cross_entropy(found.end_logits, torch.ones(4).long()),
        ]
    ).mean()
    torch.testing.assert_close(found.loss, expected)


def test_hidden_states_are_the_embeddings_and_each_layer() -> None:
    ids, mask = _batch()
    found = _model(2, "BiLSTMForSequenceClassification")(ids, mask, output_hidden_states=True)
    assert [tuple(states.shape[-1:]) for states in found.hidden_states] == [(12,), (16,), (16,)]


@pytest.mark.parametrize("task", TASKS)
def test_checkpoints_load_for_every_task(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, task: str
) -> None:
    import torch
    import transformers

    source = tiny_checkpoint(tmp_path / "model", "bilstm", task=task, labels=("a", "b"))
    checkpoint = open_checkpoint(source)
    assert checkpoint.task.name == task
    assert checkpoint.config.architectures == [TASKS[task]]
    model = getattr(transformers, checkpoint.task.auto_class).from_pretrained(source)
    assert type(model).__name__ == TASKS[task]
    loaded = load_model(checkpoint)
    assert count_parameters(loaded) == count_parameters(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, next(v for k, v in loaded.state_dict().items() if name in k))


def test_a_misspelt_architecture_is_named(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = tiny_checkpoint(tmp_path / "model", "bilstm")
    values = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**values, "model_type": "bilstn"}))
    with pytest.raises(
        CheckpointError, match="unknown architecture 'bilstn', did you mean 'bilstm'?"
    ):
        open_checkpoint(source)


@pytest.mark.parametrize("flexible", [False, True])
@pytest.mark.parametrize("prepared", [False, True])
def test_exported_graphs_agree(flexible: bool, prepared: bool) -> None:
    import torch

    from edge.models.recurrence import prepare_export

    model = _model(2)
    ids, mask = _batch()
    with torch.no_grad():
        expected = model(ids, mask)
    names = set(model.state_dict())
    if prepared:
        prepare_export(model)
    assert set(model.state_dict()) == names
    length = torch.export.Dim("sequence", min=4, max=64)
    shapes = {"input_ids": {1: length}, "attention_mask": {1: length}} if flexible else None
    given = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        program = torch.export.export(model, (), given, dynamic_shapes=shapes, strict=False)
        own = any("edge.lstm" in str(node.target) for node in program.graph.nodes)
        assert own == flexible
        wider = 7 if flexible else 0
        padded = {name: torch.nn.functional.pad(value, (0, wider)) for name, value in given.items()}
        found = program.module()(**padded)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output, rtol=0, atol=1e-6)
    real = mask.bool()
    torch.testing.assert_close(
        found.last_hidden_state[:, : ids.shape[1]][real],
        expected.last_hidden_state[real],
        rtol=0,
        atol=1e-6,
    )
