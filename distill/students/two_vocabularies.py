"""A model that reads, and answers in, the tokens of two vocabularies while it is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.signals.shapes import Setting
from edge.errors import ConfigError


class BothVocabularies(nn.Module):
    """The embeddings a student has for its teacher's tokens beside those for its own.

    They start as the teacher's, are trained with the student and thrown away. Where the student
    guesses hidden tokens, each vocabulary has its own output layer, tied to its embeddings: the
    logits of one follow those of the other, (B, L, own + other).
    Source: Zhao et al. 2019, "Extremely Small BERT Models from Mixed-Vocabulary Training", 3,
    stage I.
    """

    def __init__(self, student: Any, teacher: Any, setting: Setting, stage: str) -> None:
        super().__init__()
        if setting.same_words:
            raise ConfigError(
                f"stage '{stage}' mixes the words of two vocabularies, and student and teacher "
                "have the same: give the student its own, vocabulary=5000, say, or leave mixing out"
            )
        own, theirs = student.get_input_embeddings(), teacher.get_input_embeddings()
        if own.embedding_dim != theirs.embedding_dim:
            raise ConfigError(
                f"stage '{stage}' mixes the words of two vocabularies, embedded in "
                f"{own.embedding_dim} and {theirs.embedding_dim} numbers: train an assistant that "
                "is as wide as the teacher, and make the student of it"
            )
        self.words = nn.Embedding(theirs.num_embeddings, theirs.embedding_dim)
        with torch.no_grad():
            self.words.weight.copy_(theirs.weight)
        # Not its own: neither saved nor trained twice.
        self._own = (own,)
        self._reads = _place(student, own)
        self._answers: tuple[nn.Module, str] | None = None
        self.bias: nn.Parameter | None = None
        outputs = student.get_output_embeddings()
        if outputs is not None:
            self._answer_too(student, teacher, outputs)

    @property
    def sizes(self) -> tuple[int, int]:
        """The tokens of the student's vocabulary, and of the teacher's."""
        return self._own[0].num_embeddings, self.words.num_embeddings

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """The student takes the tokens of both meanwhile, the teacher's numbered after its own."""
        with contextlib.ExitStack() as after:
            after.enter_context(_instead(*self._reads, _Embedding(*self._own, self.words)))
            if self._answers is not None:
                own = getattr(*self._answers)
                answers = _Answers(own, self.words, self.bias)
                after.enter_context(_instead(*self._answers, answers))
            yield

    def _answer_too(self, student: Any, teacher: Any, outputs: nn.Module) -> None:
        tied = getattr(outputs, "weight", None) is self._own[0].weight
        if not isinstance(outputs, nn.Linear) or not tied:
            raise ConfigError(
                f"{student.config.model_type} guesses tokens by a layer of its own, not by its "
                "embeddings, so two vocabularies cannot be mixed: take another architecture"
            )
        self._answers = _place(student, outputs)
        bias = getattr(teacher.get_output_embeddings(), "bias", None)
        start = torch.zeros(self.words.num_embeddings) if bias is None else bias.detach().clone()
        self.bias = nn.Parameter(start)


class _Embedding(nn.Module):
    """Embeddings of numbers below the size of the first by it, of the others by the second."""

    def __init__(self, own: nn.Embedding, other: nn.Embedding) -> None:
        super().__init__()
        self._parts = (own, other)

    def forward(self, ids: Tensor) -> Tensor:
        own, other = self._parts
        size = own.num_embeddings
        ours, theirs = own(ids.clamp(max=size - 1)), other((ids - size).clamp(min=0))
        found: Tensor = torch.where((ids < size).unsqueeze(-1), ours, theirs)
        return found


class _Answers(nn.Module):
    """The logits of an output layer, then those of other tokens by their embeddings."""

    def __init__(self, own: nn.Module, other: nn.Embedding, bias: Tensor | None) -> None:
        super().__init__()
        self._own, self._other, self._bias = (own,), (other,), (bias,)

    def forward(self, states: Tensor) -> Tensor:
        theirs = F.linear(states, self._other[0].weight, self._bias[0])
        return torch.cat([self._own[0](states), theirs], -1)


def _place(model: nn.Module, wanted: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds another one, and what it calls it."""
    name = next(name for name, module in model.named_modules() if module is wanted)
    parent, _, own = name.rpartition(".")
    return model.get_submodule(parent), own


@contextlib.contextmanager
def _instead(parent: nn.Module, name: str, module: nn.Module) -> Iterator[None]:
    before = getattr(parent, name)
    setattr(parent, name, module)
    try:
        yield
    finally:
        setattr(parent, name, before)
