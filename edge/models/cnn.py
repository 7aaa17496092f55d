"""Convolutions of several widths over word pieces, arXiv 1408.5882, with the inputs of BERT."""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from edge.models.base import TextClassifier, WordPieceModel, read, register_classes, word_pieces


@strict
class CNNConfig(PreTrainedConfig):
    """Sizes of a text CNN.

    embedding_size: of a word piece. filters: of each width. kernel_widths: in tokens, each a
    convolution of its own. max_position_embeddings: the longest input; no weight depends on it.
    """

    model_type = "cnn"

    vocab_size: int = 30522
    embedding_size: int = 300
    filters: int = 100
    kernel_widths: list[int] | tuple[int, ...] = (3, 4, 5)
    hidden_dropout_prob: float | int = 0.5
    initializer_range: float = 0.1
    max_position_embeddings: int = 512
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    tie_word_embeddings: bool = False

    @property
    def hidden_size(self) -> int:
        """The width of the hidden states: all filters side by side."""
        return self.filters * len(self.kernel_widths)

    @property
    def num_hidden_layers(self) -> int:
        """One: the convolutions lie beside each other."""
        return 1


class CNNPreTrainedModel(WordPieceModel):
    """What all CNN models share."""

    config_class = CNNConfig
    base_model_prefix = "cnn"


class CNNModel(CNNPreTrainedModel):
    """Embeddings and one layer of parallel convolutions; zeros stand beyond both ends of a text."""

    def __init__(self, config: CNNConfig) -> None:
        super().__init__(config)
        self.embeddings = word_pieces(config)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.embedding_size, config.filters, width)
            for width in config.kernel_widths
        )
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode input_ids and attention_mask, (batch, sequence).

        last_hidden_state: (batch, sequence, hidden), at each token what the windows around it
        give, 0 on padding; pooler_output: (batch, hidden), the most that each filter gives.
        hidden_states, when asked for: the embeddings and these states.
        """
        words, attention_mask = read(self.embeddings, input_ids, attention_mask, inputs_embeds)
        real = attention_mask.to(words.dtype)[:, None]
        # (batch, sequence, embedding) to (batch, embedding, sequence), zeros on padding
        given = words.transpose(1, 2) * real
        found = [_same_length(convolution, given).relu() for convolution in self.convolutions]
        # Nothing is below 0, so padding never is the maximum unless all is 0.
        states = torch.cat(found, 1) * real
        last = states.transpose(1, 2)
        return BaseModelOutputWithPooling(
            last_hidden_state=last,
            pooler_output=states.amax(-1),
            hidden_states=(words, last) if output_hidden_states else None,
        )


def _same_length(convolution: Any, given: torch.Tensor) -> torch.Tensor:
    """A convolution of (batch, channels, sequence) with each token in the middle of its window."""
    beyond = convolution.kernel_size[0] - 1
    padded = nn.functional.pad(given, (beyond // 2, beyond - beyond // 2))
    states: torch.Tensor = convolution(padded)
    return states


class CNNForSequenceClassification(TextClassifier, CNNPreTrainedModel):
    """Logits of the text, from the most that each filter gives anywhere in it."""

    def __init__(self, config: CNNConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.cnn = CNNModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def answer(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(pooled))


def register() -> None:
    """Make Transformers' Auto classes know `model_type` cnn; again is harmless."""
    classes = {
        AutoModel: CNNModel,
        AutoModelForSequenceClassification: CNNForSequenceClassification,
    }
    register_classes(CNNConfig, classes)
