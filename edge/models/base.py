"""What this project's own encoders share: a table of word pieces, and no attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class WordPieceModel(PreTrainedModel):
    """An encoder with its table in `embeddings`, or such an encoder with a task's head."""

    _input_embed_layer = "embeddings"
    # It has no attention to choose an implementation of.
    _supports_sdpa = True


class TextClassifier(WordPieceModel):
    """Logits of the text, of what the encoder pools."""

    classifier: nn.Module

    def answer(self, pooled: torch.Tensor) -> torch.Tensor:
        """(batch, hidden) to (batch, labels)."""
        return self.classifier(pooled)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: Any,
    ) -> SequenceClassifierOutput:
        """Logits (batch, labels), and the loss that `problem_type` names when labels are given."""
        encoded = self.base_model(input_ids, attention_mask, **options)
        logits = self.answer(encoded.pooler_output)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config, **options)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states
        )


def word_pieces(config: Any) -> nn.Embedding:
    """The table of an encoder."""
    return nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)


def read(
    table: nn.Embedding,
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What an encoder starts from: vectors (batch, sequence, size), and the mask of real tokens."""
    words = table(input_ids) if inputs_embeds is None else inputs_embeds
    if attention_mask is None:
        attention_mask = torch.ones(words.shape[:2], dtype=torch.int32, device=words.device)
    return words, attention_mask


def register_classes(
    config: type[PreTrainedConfig], classes: Mapping[Any, type[PreTrainedModel]]
) -> None:
    """Make Transformers' Auto classes know a `model_type`; again is harmless."""
    AutoConfig.register(config.model_type, config, exist_ok=True)
    for auto, model in classes.items():
        auto.register(config, model, exist_ok=True)
