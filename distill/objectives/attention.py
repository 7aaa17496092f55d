"""Terms on attention: scores, probabilities, and relations of queries, keys and values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from distill.losses import distributions, relations
from distill.objectives.base import Batch, Mapped
from distill.recipe.terms import AttentionProbsTerm, AttentionScoresTerm, MappedTerm, RelationsTerm
from distill.signals.capture import SCORES, Signals
from distill.signals.shapes import Setting, Shape
from edge.errors import ConfigError

# MiniLMv2's choice for base-sized teachers, section 4.1.
_MOST_HEADS = 48
_READ = {
    "query": ("queries", "queries"),
    "key": ("keys", "keys"),
    "value": ("values", "values"),
    "query-key": ("queries", "keys"),
}


class _Attentive(Mapped):
    """A distance of (B, L) between mapped layers' attention, averaged over real tokens."""

    def between(self, student: Signals, teacher: Signals, index: int, valid: Tensor) -> Tensor:
        """The distance of a pair of layers for each query, (B, L)."""
        raise NotImplementedError

    def distance(self, batch: Batch, index: int) -> Tensor:
        student, teacher = self.learn(batch), self.follow(batch)
        valid = relations.pair_mask(batch.mask)
        for signals, layer in zip((student, teacher), self.pairs[index], strict=True):
            # Where a layer looks at a part of the text only, both are compared on that part.
            if layer in signals.attended:
                valid = valid & signals.attended[layer]
        values = self.between(student, teacher, index, valid)
        return distributions.masked_mean(values, batch.mask, batch.totals["tokens"])


class Attentions(_Attentive):
    """The distance between attention scores, or between the probabilities they stand for."""

    fields = (SCORES,)

    def __init__(self, term: AttentionScoresTerm | AttentionProbsTerm, setting: Setting) -> None:
        super().__init__(term, setting)
        self._heads = _compared_heads(term, setting)
        self._loss: Callable[[Tensor, Tensor, Tensor], Tensor] = {
            "mse": relations.attention_mse,
            "kl": relations.attention_kl,
        }[term.loss]

    def between(self, student: Signals, teacher: Signals, index: int, valid: Tensor) -> Tensor:
        s, t = self.pairs[index]
        scores = student.attention_scores[s], teacher.attention_scores[t]
        ours, theirs = (relations.joined_heads(one, self._heads) for one in scores)
        assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
        return self._loss(ours, theirs, valid)


class Relations(_Attentive):
    """The distance between how tokens relate in two models' queries, keys or values."""

    def __init__(self, term: RelationsTerm, setting: Setting) -> None:
        self._read = _READ[term.of]
        self.fields = tuple(sorted(set(self._read)))
        super().__init__(term, setting)
        self.heads = _relation_heads(term, setting)

    def between(self, student: Signals, teacher: Signals, index: int, valid: Tensor) -> Tensor:
        s, t = self.pairs[index]
        a, b = self._read
        ours = getattr(student, a)[s], getattr(student, b)[s]
        theirs = getattr(teacher, a)[t], getattr(teacher, b)[t]
        return relations.relation_kl(ours, theirs, valid, self.heads)


def _compared_heads(
    term: AttentionScoresTerm | AttentionProbsTerm | RelationsTerm, setting: Setting
) -> int | None:
    """The number of heads that both models' are joined to; None for the heads both have."""
    ours, theirs = (_attention(term, setting, owner)[0] for owner in _OWNERS)
    if term.heads == "common":
        return math.gcd(ours, theirs)
    if ours != theirs:
        raise ConfigError(
            f"match: {term.match} compares head by head, and the student has {ours} heads where "
            f"the teacher has {theirs}: give it as many with --student heads={theirs}, or say "
            "heads: common in the recipe"
        )
    return None


def _relation_heads(term: RelationsTerm, setting: Setting) -> int | None:
    """The number of relation heads; None for the heads both models have."""
    if term.heads is None or term.heads == "common":
        return _compared_heads(term, setting)
    widths = [_attention(term, setting, owner)[1] for owner in _OWNERS]
    common = math.gcd(*widths)
    if term.heads == "auto":
        return max(n for n in range(1, min(common, _MOST_HEADS) + 1) if common % n == 0)
    if common % term.heads:
        raise ConfigError(
            f"match: relations cannot cut the {widths[0]} units of the student's attention and "
            f"the teacher's {widths[1]} into {term.heads} heads: use a divisor of {common}, "
            "or heads: auto"
        )
    return term.heads


_Owner = Literal["student", "teacher"]
_OWNERS: tuple[_Owner, _Owner] = ("student", "teacher")


def _attention(term: MappedTerm, setting: Setting, owner: _Owner) -> tuple[int, int]:
    """Heads and width of one side; raises ConfigError where attention cannot be captured."""
    shape: Shape = setting.shape(term.learner if owner == "student" else term.teacher)
    if shape.attention is None:
        raise ConfigError(
            f"match: {term.match} needs the attention of the {owner}, and {shape.architecture} "
            "gives none: use match: logits or hidden_states, as recipe kd-hidden does"
        )
    return shape.attention
