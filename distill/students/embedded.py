"""Students that embed texts: an encoder made as any other, and what makes one vector of its states.

Their vectors are as long as the teacher's, or shorter: cut to `embedding_dim`, or to their own
hidden states. A dense layer that this needs starts where least squares put it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.recipe.student import StudentSpec
from distill.students.base import Student, Teacher
from distill.students.build import build_student
from distill.students.projection import eigenvectors
from edge.checkpoint import counted_head, max_length
from edge.checkpoint.tokenizer import put_prompt
from edge.console import hush
from edge.data import Table
from edge.embeddings.dense import dense_layers
from edge.embeddings.encoder import SentenceEncoder
from edge.embeddings.head import SentenceHead
from edge.errors import ConfigError
from edge.models.inputs import accepted
from edge.tasks import get_task
from edge.tasks.feature_extraction import FeatureExtraction

_SAMPLE = 1024
_BATCH_SIZE = 32
_MAX_LENGTH = 128
# Of the mean square of what is read: least squares stay defined where texts are few.
_RIDGE = 1e-3
Layers = list[tuple[nn.Linear, str]]


def build_embedder(
    spec: StudentSpec,
    teacher: Teacher | None,
    table: Table,
    **options: Any,
) -> Student:
    """A student of `build_student` as a SentenceEncoder; of a cross-encoder's layers, too.

    Raises ConfigError for more numbers than hidden states or the teacher's vectors have, and what
    `build_student` raises.
    """
    student = build_student(
        spec,
        _encoder_of(teacher),
        table,
        **{**options, "task": FeatureExtraction.name},
    )
    head, layers = _head(spec, teacher, student)
    own = layers[-1][0].out_features if layers else student.model.config.hidden_size
    size = _size(spec, teacher, own, student.model.config.hidden_size)
    theirs = vectors_of(teacher)
    cut = size != own or (theirs is not None and theirs.size > size)
    if cut:
        layers = [*layers, (nn.Linear(own, size, bias=False), "Identity")]
    model = SentenceEncoder(student.model, head, layers).float()
    made = replace(student, model=model, checkpoint=replace(student.checkpoint, head=head))
    if cut and spec.init != "random":
        _fit(made, teacher, sample_of(table))
    return made


def directions_of(teacher: Teacher, size: int, texts: Sequence[str]) -> Tensor:
    """The `size` directions of its vectors that matter most over some texts, (size, theirs).

    They are the first eigenvectors of the vectors' second moments, not centred: of all projections
    the one that keeps most of the vectors, and so of their dot products.
    """
    with hush():
        return _principal(embed(teacher, texts), size)


def sample_of(table: Table) -> list[str]:
    """Some of a file's texts, always the same ones."""
    texts = list(dict.fromkeys((*table.texts, *(table.pairs or ()))))
    order = np.random.default_rng(0).permutation(len(texts))[:_SAMPLE]
    return [texts[index] for index in order]


def embed(reader: Teacher | Student, texts: Sequence[str], *, pooled: bool = False) -> Tensor:
    """The vectors of texts, (N, size), float64; pooled: what the last dense layer reads of them."""
    model, tokenizer = reader.model, reader.tokenizer
    length = min(_MAX_LENGTH, max_length(reader.checkpoint, tokenizer))
    seen: list[Tensor] = []
    training = model.training
    model.eval()
    with ExitStack() as after, torch.no_grad():
        after.callback(model.train, training)
        if pooled:
            layer = model.layers[-1][0]
            hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
            after.callback(hook.remove)
        for start in range(0, len(texts), _BATCH_SIZE):
            inputs = tokenizer(
                list(texts[start : start + _BATCH_SIZE]),
                truncation=True,
                max_length=length,
                padding=True,
                return_tensors="pt",
            ).to(model.device)
            answer = model(**accepted(model, inputs))
            if not pooled:
                seen.append(answer["sentence_embedding"])
    return torch.cat(seen).double().cpu()


def _encoder_of(teacher: Teacher | None) -> Teacher | None:
    """A teacher without what follows its hidden states."""
    if teacher is None:
        return None
    task = get_task(FeatureExtraction.name)
    checkpoint = replace(teacher.checkpoint, task=task)
    return replace(teacher, model=teacher.model.base_model, checkpoint=checkpoint)


def vectors_of(teacher: Teacher | None) -> SentenceEncoder | None:
    """The teacher's model where it embeds; a cross-encoder does not."""
    model = teacher.model if teacher else None
    return model if isinstance(model, SentenceEncoder) else None


def _head(
    spec: StudentSpec, teacher: Teacher | None, student: Student
) -> tuple[SentenceHead, Layers]:
    """What the student itself says, or else as the teacher does."""
    theirs, own = vectors_of(teacher), counted_head(student.checkpoint)
    if spec.source is not None and own is not None and own != SentenceHead():
        layers = dense_layers(own, allow_pickle=student.checkpoint.allow_pickle)
        unit = theirs.description.normalize if theirs else own.normalize
        if theirs is not None and own.prompt != theirs.description.prompt:
            raise ConfigError(
                f"the student's texts start with the prompt {own.prompt!r} and the teacher's with "
                f"{theirs.description.prompt!r}: set default_prompt_name of both to the same "
                "prompt, or to null"
            )
        return replace(own, projections=(), normalize=unit, lowercase=False), layers
    if theirs is None or teacher is None:
        # Where cosines are trained, dot products should give the same order.
        return SentenceHead(normalize=True), []
    head = replace(theirs.description, projections=(), lowercase=False)
    if head.prompt and student.tokenizer is not teacher.tokenizer:
        # They read the same texts, with the tokens of the student's tokenizer.
        put_prompt(student.tokenizer, head.prompt, folder=student.checkpoint.path)
    same = theirs.config.hidden_size == student.model.config.hidden_size
    if spec.source is not None or not same:
        return head, []
    return head, [(_copied(layer), activation) for layer, activation in theirs.layers]


def _copied(layer: nn.Linear) -> nn.Linear:
    ours = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    ours.load_state_dict(layer.state_dict())
    return ours


def _size(spec: StudentSpec, teacher: Teacher | None, own: int, hidden: int) -> int:
    theirs, wanted = vectors_of(teacher), spec.embedding_dim
    if wanted is None:
        return min(own, theirs.size) if theirs else own
    if wanted > hidden:
        raise ConfigError(
            f"embedding_dim={wanted} is more than the student's hidden states have: ask for at "
            f"most {hidden}"
        )
    if theirs is not None and wanted > theirs.size:
        raise ConfigError(
            f"embedding_dim={wanted} is more than the teacher's vectors have: ask for at most "
            f"{theirs.size}"
        )
    return wanted


def _fit(student: Student, teacher: Teacher | None, texts: Sequence[str]) -> None:
    """Set the last dense layer: towards the teacher's vectors, or to what keeps most of its own."""
    layer = student.model.layers[-1][0]
    with hush():
        x = embed(student, texts, pooled=True)
        weight = _principal(x, layer.out_features)
        if teacher is not None and vectors_of(teacher) is not None:
            y = embed(teacher, texts)
            if y.shape[1] > layer.out_features:
                y = y @ _principal(y, layer.out_features).T
            if student.model.description.normalize:
                y = F.normalize(y, dim=-1)
            square = x.T @ x
            ridge = _RIDGE * square.diagonal().mean() * torch.eye(len(square)).double()
            weight = torch.linalg.solve(square + ridge, x.T @ y).T
    with torch.no_grad():
        layer.weight.copy_(weight)


def _principal(vectors: Tensor, size: int) -> Tensor:
    """(N, numbers) to (size, numbers), the most important direction first."""
    found = eigenvectors(vectors.T @ vectors)[:, :size].T
    # An eigenvector has no sign of its own.
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    return found * largest.sign()
