"""How long a text may be follows from the model's own table of positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from edge.models.positions import longest_text, unused_positions

_SIZE: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
}
# What each needs beside; all of them count positions from a padding index.
_LIKE_ROBERTA: dict[str, dict[str, Any]] = {
    "roberta": {},
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "camembert": {},
    "data2vec-text": {},
    "roberta-prelayernorm": {},
    "ibert": {},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "longformer": {"attention_window": [8]},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "esm": {"position_embedding_type": "absolute", "token_dropout": False},
    "mpnet": {},
}


def _config(name: str, **changes: Any) -> Any:
    return transformers.AutoConfig.for_model(name, **{**_SIZE, **changes})


@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("name", _LIKE_ROBERTA)
def test_the_longest_text_runs_and_one_token_more_does_not(name: str, pad: int) -> None:
    config = _config(name, pad_token_id=pad, mask_token_id=4, **_LIKE_ROBERTA[name])
    model = transformers.AutoModel.from_config(config).eval()
    length = longest_text(config)
    # MPNet's padding index is its own.
    assert length == 24 - (1 if name == "mpnet" else pad) - 1
    assert unused_positions(config) == 24 - length
    with torch.inference_mode():
        model(input_ids=torch.full((1, length), 7))
        if name != "longformer":  # it pads to its window, and reads positions of what it pads with
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, length + 1), 7))


@pytest.mark.parametrize(
    ("name", "changes"),
    [("bert", {}), ("electra", {"embedding_size": 16}), ("nystromformer", {}), ("modernbert", {})],
)
def test_others_count_from_the_first_token(name: str, changes: dict[str, Any]) -> None:
    config = _config(name, pad_token_id=1, **changes)
    assert (longest_text(config), unused_positions(config)) == (24, 0)


def test_another_architecture_with_the_same_padding() -> None:
    config = _config("bert", pad_token_id=3)
    assert unused_positions(config, "roberta") == 4
    assert unused_positions(config, "distilbert") == 0
