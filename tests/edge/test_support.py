"""Architectures that cannot be encoders here are refused by name, before anything is traced."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from edge.errors import CheckpointError
from edge.models.support import check_architecture, reads_token_types
from edge.tasks import TASKS, get_task

_CLASSIFIER = "AutoModelForSequenceClassification"


def config(name: str, **changes: Any) -> Any:
    return transformers.AutoConfig.for_model(name, **changes)


@pytest.mark.parametrize(
    ("name", "auto", "message"),
    [
        ("gpt2", _CLASSIFIER, "'gpt2' has a decoder; only encoders are supported"),
        ("llama", _CLASSIFIER, "'llama' has a decoder"),
        ("qwen3", "AutoModel", "'qwen3' has a decoder"),
        ("modernbert-decoder", _CLASSIFIER, "'modernbert-decoder' has a decoder"),
        ("t5", "AutoModel", "'t5' has a decoder"),
        ("bart", _CLASSIFIER, "'bart' has a decoder"),
        ("canine", _CLASSIFIER, "'canine' is not supported: it reads characters"),
        ("perceiver", _CLASSIFIER, "'perceiver' is not supported: it reads bytes"),
        ("reformer", _CLASSIFIER, "'reformer' .*random|'reformer' has a decoder"),
        ("yoso", _CLASSIFIER, "'yoso' is not supported: its attention by hashes is random"),
        ("funnel", _CLASSIFIER, "'funnel' is not supported: .* cannot read short texts"),
        ("fnet", _CLASSIFIER, "'fnet' is not supported: .* mixes padding into the text"),
        ("nystromformer", _CLASSIFIER, "depends on padding"),
        ("longformer", _CLASSIFIER, "'longformer' is not supported: its attention in windows"),
        ("layoutlm", _CLASSIFIER, "'layoutlm' is not supported: it also reads the place of each"),
        ("lilt", _CLASSIFIER, "it also reads the place of each word on a page"),
        ("markuplm", _CLASSIFIER, "it also reads the place of each word in a web page"),
        ("tapas", _CLASSIFIER, "it reads tables"),
        ("roc_bert", _CLASSIFIER, "it also reads the shape of each character"),
        ("vit", "AutoModel", "'vit' is not supported: it also reads an image"),
        ("wav2vec2", "AutoModel", "'wav2vec2' is not supported: it also reads sound"),
        ("vit", "AutoModelForMaskedLM", "'vit' has no ForMaskedLM in Transformers: choose another"),
        ("splinter", _CLASSIFIER, "'splinter' has no ForSequenceClassification in Transformers"),
    ],
)
def test_refusals_name_the_architecture_and_why(name: str, auto: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        check_architecture(config(name), auto, where="here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "modernbert", "deberta-v2"])
def test_encoders_are_let_through(name: str, task: str) -> None:
    check_architecture(config(name), get_task(task).auto_class, where="here")


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("bert", {}, True),
        ("roberta", {"type_vocab_size": 1}, False),
        ("roberta", {"type_vocab_size": 2}, True),
        ("distilbert", {}, False),
        ("deberta-v2", {"type_vocab_size": 0}, False),
        ("modernbert", {}, False),
        ("xlnet", {}, True),
    ],
)
def test_segments_are_read_by_models_that_have_two(
    name: str, changes: dict[str, Any], expected: bool
) -> None:
    assert reads_token_types(config(name, **changes), _CLASSIFIER) is expected


def test_what_a_model_raises_on_a_text_is_one_line(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Whatever no check foresees is said of the checkpoint, with the text it broke on."""
    from edge.checkpoint import load_model, load_tokenizer, open_checkpoint
    from edge.reference import golden_cases

    folder = tiny_checkpoint(tmp_path / "short", "bert")
    checkpoint = open_checkpoint(folder)
    with pytest.raises(
        CheckpointError, match=r"\(bert\) cannot read 'the.*', 80 tokens: "
    ) as caught:
        golden_cases(
            checkpoint,
            load_model(checkpoint),
            load_tokenizer(checkpoint),
            [("the film " * 50, None)],
            inputs=("input_ids", "attention_mask", "token_type_ids"),
            length=80,
        )
    assert "\n" not in str(caught.value)
    shutil.rmtree(folder)
