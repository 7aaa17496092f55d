"""A bidirectional LSTM with the inputs of BERT, arXiv 1903.12136, section 3.1."""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
)
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    TokenClassifierOutput,
)

from edge.models.base import TextClassifier, WordPieceModel, read, register_classes, word_pieces
from edge.models.recurrence import BidirectionalLSTM, mirror


@strict
class BiLSTMConfig(PreTrainedConfig):
    """Sizes of a bidirectional LSTM.

    embedding_size: of a word piece. lstm_size: units of each direction, so hidden states are
    twice as wide. classifier_size: units of the dense layer between states and logits.
    max_position_embeddings: the longest input in tokens; no weight depends on it.
    """

    model_type = "bilstm"

    vocab_size: int = 30522
    embedding_size: int = 300
    lstm_size: int = 150
    num_hidden_layers: int = 1
    classifier_size: int = 400
    hidden_dropout_prob: float | int = 0.1
    initializer_range: float = 0.1
    max_position_embeddings: int = 512
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    tie_word_embeddings: bool = True

    @property
    def hidden_size(self) -> int:
        """The width of the hidden states."""
        return 2 * self.lstm_size


class BiLSTMPreTrainedModel(WordPieceModel):
    """What all BiLSTM models share."""

    config_class = BiLSTMConfig
    base_model_prefix = "bilstm"


class BiLSTMModel(BiLSTMPreTrainedModel):
    """Embeddings and LSTM layers; rows are padded on the right."""

    def __init__(self, config: BiLSTMConfig) -> None:
        super().__init__(config)
        self.embeddings = word_pieces(config)
        sizes = [config.embedding_size] + [config.hidden_size] * (config.num_hidden_layers - 1)
        self.layers = nn.ModuleList(BidirectionalLSTM(size, config.lstm_size) for size in sizes)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode input_ids and attention_mask, (batch, sequence), the mask ones and then zeros.

        last_hidden_state: (batch, sequence, 2 * lstm_size), both directions at each token;
        pooler_output: (batch, 2 * lstm_size), each direction after its last token.
        hidden_states, when asked for: the embeddings and the states of each layer.
        """
        states, attention_mask = read(self.embeddings, input_ids, attention_mask, inputs_embeds)
        reverse = mirror(attention_mask, states.dtype)
        hidden = [states]
        last = states
        for layer in self.layers:
            states = self.dropout(states)
            last = layer(states, reverse @ states)
            ahead, behind = last.chunk(2, -1)
            states = torch.cat([ahead, reverse @ behind], -1)
            hidden.append(states)
        return BaseModelOutputWithPooling(
            last_hidden_state=states,
            pooler_output=(reverse[:, :1] @ last)[:, 0],
            hidden_states=tuple(hidden) if output_hidden_states else None,
        )


class _Head(nn.Module):
    """Dropout, dense, ReLU, logits."""

    def __init__(self, config: BiLSTMConfig, outputs: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.dense = nn.Linear(config.hidden_size, config.classifier_size)
        self.logits = nn.Linear(config.classifier_size, outputs)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.logits(self.dense(self.dropout(states)).relu())
        return logits


class BiLSTMForSequenceClassification(TextClassifier, BiLSTMPreTrainedModel):
    """Logits of the text, from the last state of each direction."""

    def __init__(self, config: BiLSTMConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bilstm = BiLSTMModel(config)
        self.classifier = _Head(config, config.num_labels)
        self.post_init()


class BiLSTMForTokenClassification(BiLSTMPreTrainedModel):
    """Logits of each token."""

    def __init__(self, config: BiLSTMConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bilstm = BiLSTMModel(config)
        self.classifier = _Head(config, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: Any,
    ) -> TokenClassifierOutput:
        """Logits (batch, sequence, labels), and the loss over labels other than -100."""
        encoded = self.bilstm(input_ids, attention_mask, **options)
        logits = self.classifier(encoded.last_hidden_state)
        loss = (
            None if labels is None else self.loss_function(logits, labels, self.config, **options)
        )
        return TokenClassifierOutput(loss=loss, logits=logits, hidden_states=encoded.hidden_states)


class BiLSTMForQuestionAnswering(BiLSTMPreTrainedModel):
    """A start and an end logit for each token."""

    def __init__(self, config: BiLSTMConfig) -> None:
        super().__init__(config)
        self.bilstm = BiLSTMModel(config)
        self.qa_outputs = _Head(config, 2)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        **options: Any,
    ) -> QuestionAnsweringModelOutput:
        """Logits (batch, sequence) each, and the loss when both positions are given."""
        encoded = self.bilstm(input_ids, attention_mask, **options)
        logits = self.qa_outputs(encoded.last_hidden_state)
        start, end = logits[..., 0], logits[..., 1]
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start, end, start_positions, end_positions, **options)
        return QuestionAnsweringModelOutput(
            loss=loss, start_logits=start, end_logits=end, hidden_states=encoded.hidden_states
        )


class BiLSTMForMaskedLM(BiLSTMPreTrainedModel):
    """Logits of the vocabulary at each token, against the embeddings themselves."""

    _tied_weights_keys = {"decoder.weight": "bilstm.embeddings.weight"}

    def __init__(self, config: BiLSTMConfig) -> None:
        super().__init__(config)
        self.bilstm = BiLSTMModel(config)
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.decoder = nn.Linear(config.embedding_size, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The layer that shares the embeddings' weights."""
        return self.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the layer that shares the embeddings' weights."""
        self.decoder = value

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **options: Any,
    ) -> MaskedLMOutput:
        """Logits (batch, sequence, vocabulary), and the loss over labels other than -100."""
        encoded = self.bilstm(input_ids, attention_mask, **options)
        logits = self.decoder(self.dense(encoded.last_hidden_state).relu())
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **options)
        return MaskedLMOutput(loss=loss, logits=logits, hidden_states=encoded.hidden_states)


_AUTO_CLASSES = {
    AutoModel: BiLSTMModel,
    AutoModelForMaskedLM: BiLSTMForMaskedLM,
    AutoModelForQuestionAnswering: BiLSTMForQuestionAnswering,
    AutoModelForSequenceClassification: BiLSTMForSequenceClassification,
    AutoModelForTokenClassification: BiLSTMForTokenClassification,
}


def register() -> None:
    """Make Transformers' Auto classes know `model_type` bilstm; again is harmless."""
    register_classes(BiLSTMConfig, _AUTO_CLASSES)
