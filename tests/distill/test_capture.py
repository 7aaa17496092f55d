"""What is captured of every architecture, against what its own eager attention answers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.signals.attention import attention_shape
from distill.signals.capture import LiveTeacher, Need, Needs, Signals, capture
from edge.errors import TrainingError
from tests.models import ARCHITECTURES, tiny_checkpoint

ATTENTIVE = sorted(set(ARCHITECTURES) - {"bilstm"})
FIELDS = ("attention_scores", "queries", "keys", "values")
LENGTHS = (20, 11)


def build(folder: Path, architecture: str, **changes: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    tiny_checkpoint(folder, architecture, **changes)
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build(tmp_path_factory.mktemp("bert"), "bert")


def inputs(extra: int = 0) -> dict[str, torch.Tensor]:
    """Two texts of different lengths, longer than ModernBERT's window, and `extra` padding."""
    width = max(LENGTHS) + extra
    ids = torch.zeros(len(LENGTHS), width, dtype=torch.long)
    generator = torch.Generator().manual_seed(3)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.randint(5, 60, (length,), generator=generator)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def everything(model: Any, *fields: str) -> Needs:
    layers = range(1, model.config.num_hidden_layers + 1)
    return frozenset(Need(name, layer) for name in fields for layer in layers)


def pairs(signals: Signals, layer: int, mask: torch.Tensor) -> torch.Tensor:
    """Which query looks at which key, (B, heads, L, L)."""
    real = mask.bool()
    valid = (real[:, None, :, None] & real[:, None, None, :]).expand_as(
        signals.attention_scores[layer]
    )
    return valid & signals.attended[layer] if layer in signals.attended else valid


@pytest.mark.parametrize("architecture", ATTENTIVE)
def test_scores_are_those_of_the_model_s_own_attention(architecture: str, tmp_path: Path) -> None:
    model = build(tmp_path, architecture)
    batch = inputs()
    with torch.no_grad():
        signals = capture(model, batch, everything(model, *FIELDS))
        if model.config._attn_implementation != "eager":
            model.set_attn_implementation("eager")
        answers = model(**batch, output_attentions=True)
    torch.testing.assert_close(signals.outputs["logits"], answers.logits, rtol=1e-4, atol=1e-5)
    assert len(answers.attentions) == model.config.num_hidden_layers
    for layer, attended in enumerate(answers.attentions, start=1):
        # SqueezeBERT alone answers scores where others answer probabilities.
        expected = attended.softmax(-1) if architecture == "squeezebert" else attended
        valid = pairs(signals, layer, batch["attention_mask"])
        scores = signals.attention_scores[layer].masked_fill(~valid, -1e30)
        for row, length in enumerate(LENGTHS):
            found = scores[row, :, :length].softmax(-1)
            torch.testing.assert_close(found, expected[row, :, :length], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ATTENTIVE)
def test_shapes_are_foretold_by_the_configuration(architecture: str, tmp_path: Path) -> None:
    model = build(tmp_path, architecture)
    with torch.no_grad():
        signals = capture(model, inputs(), everything(model, *FIELDS))
    assert attention_shape(model.config) is not None
    heads, width = attention_shape(model.config)  # type: ignore[misc]
    for captured in (signals.queries, signals.keys, signals.values):
        assert list(captured) == list(range(1, model.config.num_hidden_layers + 1))
        for vectors in captured.values():
            assert vectors.shape == (2, heads, max(LENGTHS), width // heads)
    for scores in signals.attention_scores.values():
        assert scores.shape == (2, heads, max(LENGTHS), max(LENGTHS))


@pytest.mark.parametrize("architecture", ATTENTIVE)
def test_values_are_what_attention_mixes(architecture: str, tmp_path: Path) -> None:
    """Probabilities times values are what the layer's output projection reads."""
    model = build(tmp_path, architecture)
    batch = inputs()
    names = (
        "attention.output.dense", "attention.out_lin", "attention.dense", "attn.o", "attn.Wo",
        "attention.post_attention.conv1d", "post_attention.conv1d",
    )  # fmt: skip
    read: list[torch.Tensor] = []
    for name, module in model.named_modules():
        if name.endswith(names) and "bottleneck" not in name:
            module.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with torch.no_grad():
        signals = capture(model, batch, everything(model, "attention_scores", "values"))
    assert len(read) == model.config.num_hidden_layers
    for layer, mixed in enumerate(read, start=1):
        valid = pairs(signals, layer, batch["attention_mask"])
        weights = signals.attention_scores[layer].masked_fill(~valid, -1e30).softmax(-1)
        expected = (weights @ signals.values[layer]).transpose(1, 2).flatten(2)
        mixed = mixed.transpose(1, 2) if architecture == "squeezebert" else mixed
        mixed = mixed[..., : expected.shape[-1]]  # ConvBERT's convolutions come after it
        for row, length in enumerate(LENGTHS):
            torch.testing.assert_close(
                mixed[row, :length], expected[row, :length], rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("architecture", ["bert", "albert", "mpnet", "deberta-v2"])
def test_recording_leaves_the_model_as_it_was(architecture: str, tmp_path: Path) -> None:
    """The same numbers, dropout included, and the same attention afterwards."""
    model = build(tmp_path, architecture).train()
    implementation = model.config._attn_implementation

    def run(needs: Needs) -> torch.Tensor:
        torch.manual_seed(5)
        return capture(model, inputs(), needs).outputs["logits"]

    plain, recorded, again = (run(needs) for needs in (frozenset(), _scores(1), frozenset()))
    assert torch.equal(plain, recorded) and torch.equal(plain, again)
    assert model.config._attn_implementation == implementation
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any("disentangled_attention_bias" in vars(m) for m in model.modules())


def _scores(*layers: int) -> Needs:
    return frozenset(Need("attention_scores", layer) for layer in layers)


def test_an_error_inside_leaves_the_model_as_it_was(bert: Any) -> None:
    with pytest.raises(IndexError):
        capture(bert, {"input_ids": torch.tensor([[999]])}, _scores(1))
    assert bert.config._attn_implementation == "sdpa"
    from distill.signals.attention import _RECORDER

    assert _RECORDER.get() is None


def test_only_what_is_needed_is_kept(bert: Any) -> None:
    needs = frozenset({Need("values", 2), Need("hidden_states", 1)})
    signals = capture(bert, inputs(), needs)
    assert list(signals.values) == [2]
    assert list(signals.hidden_states) == [1]
    assert signals.queries == signals.keys == signals.attention_scores == signals.attended == {}
    bare = capture(bert, inputs(), frozenset())
    assert list(bare.outputs) == ["logits"]
    assert not any(bare[1:])


def test_hidden_states_are_named_by_layer(bert: Any) -> None:
    needs = frozenset(Need("hidden_states", layer) for layer in (0, 2))
    with torch.no_grad():
        signals = capture(bert, inputs(), needs)
        states = bert(**inputs(), output_hidden_states=True).hidden_states
    assert torch.equal(signals.hidden_states[0], states[0])
    assert torch.equal(signals.hidden_states[2], states[2])


def test_padding_changes_no_captured_token(bert: Any) -> None:
    with torch.no_grad():
        plain, padded = (
            capture(bert, inputs(extra), everything(bert, *FIELDS)) for extra in (0, 7)
        )
    length = LENGTHS[0]
    torch.testing.assert_close(padded.values[2][:, :, :length], plain.values[2])
    torch.testing.assert_close(
        padded.attention_scores[2][:, :, :length, :length], plain.attention_scores[2]
    )


def test_gradients_reach_what_is_captured(bert: Any) -> None:
    signals = capture(bert, inputs(), frozenset({Need("attention_scores", 2), Need("values", 2)}))
    (signals.attention_scores[2].square().mean() + signals.values[2].square().mean()).backward()
    attention = bert.bert.encoder.layer[1].attention.self
    for module in (attention.query, attention.key, attention.value):
        assert module.weight.grad.abs().sum() > 0
    bert.zero_grad()


def test_a_teacher_gives_no_gradients(bert: Any) -> None:
    teacher = LiveTeacher(copy.deepcopy(bert), everything(bert, *FIELDS))
    signals = teacher(inputs())
    assert not signals.values[1].requires_grad and not signals.outputs["logits"].requires_grad


def test_an_attention_that_does_not_report_is_refused(bert: Any) -> None:
    """A layer whose attention goes another way would leave a term at 0 without a word."""
    model = copy.deepcopy(bert)
    self_attention = model.bert.encoder.layer[1].attention.self
    self_attention.forward = lambda hidden_states, *args, **options: (hidden_states, None)
    with pytest.raises(TrainingError, match="bert gives 1 attentions where its 2 layers"):
        capture(model, inputs(), _scores(1))


def test_a_model_without_a_head_has_nothing_to_compare(tmp_path: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_checkpoint(tmp_path, task="feature-extraction"))
    with pytest.raises(TrainingError, match="needs the head of a task"):
        capture(model, inputs(), frozenset())


def test_other_tasks_answer_under_their_own_names(tmp_path: Path) -> None:
    from transformers import AutoModelForQuestionAnswering

    tiny_checkpoint(tmp_path, task="question-answering")
    model = AutoModelForQuestionAnswering.from_pretrained(tmp_path)
    assert set(capture(model, inputs(), frozenset()).outputs) == {"start_logits", "end_logits"}


def test_architectures_without_attention(tmp_path: Path) -> None:
    assert attention_shape(build(tmp_path, "bilstm").config) is None
