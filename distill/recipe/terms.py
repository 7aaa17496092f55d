"""The terms of a recipe as data: what is matched, with which layers, by which loss, how much."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)
from typing_extensions import Self

from edge.config import Config
from edge.provenance import AS_IS

# Who takes part in a stage, by name: the student, the teacher, and whom the stage's companions
# bring. A companion's name may also stand for several of them.
Name = Annotated[str, AS_IS, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
STUDENT: Name = "student"
TEACHER: Name = "teacher"
# All teachers; where there are several they are called teacher-1, teacher-2 ... in their order.
TEACHERS: Name = "teachers"


# Whether states are compared token by token, the first one's alone, or a text's mean.
Tokens = Literal["all", "first", "mean"]


def teacher_names(count: int) -> tuple[Name, ...]:
    """What `count` teachers are called."""
    return (TEACHER,) if count == 1 else tuple(f"{TEACHER}-{i + 1}" for i in range(count))


def is_teacher(name: Name) -> bool:
    """Whether a name is that of a teacher, or of all of them."""
    return name in {TEACHER, TEACHERS} or bool(re.fullmatch(rf"{TEACHER}-[1-9]\d*", name))


# A rule of `distill.losses.layer_map`, or pairs of layers (student, teacher); -1 is the last.
LayerPairs = Annotated[tuple[tuple[int, int], ...], Field(min_length=1)]
LayerMap = Literal["uniform", "skip", "last", "emd"] | LayerPairs
FixedLayerMap = Literal["uniform", "skip", "last"] | LayerPairs
LAST_TO_LAST: LayerPairs = ((-1, -1),)


class Schedule(Config):
    """A number that goes from `start` to `end` while a stage trains, and then stays.

    shape: `step` changes at once. until: the share of the stage's steps after which it is `end`.
    """

    start: float
    end: float
    shape: Literal["linear", "cosine", "step"] = "linear"
    until: PositiveFloat = Field(default=1.0, le=1)

    def at(self, progress: float) -> float:
        """The value when `progress` of the stage's steps, 0 to 1, are done."""
        done = min(progress / self.until, 1.0)
        if self.shape == "step":
            done = math.floor(done)
        elif self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * done


Scheduled = float | Schedule


def at(value: Scheduled, progress: float) -> float:
    """A number, or what a schedule makes of it at `progress`."""
    return value.at(progress) if isinstance(value, Schedule) else value


def _bounded(fits: Callable[[float], bool], rule: str) -> Callable[[Scheduled], Scheduled]:
    def check(value: Scheduled) -> Scheduled:
        ends = (value.start, value.end) if isinstance(value, Schedule) else (value,)
        for end in ends:
            if not (math.isfinite(end) and fits(end)):
                raise ValueError(f"should be finite and {rule}, found {end:g}")
        return value

    return check


def _kind(value: Any) -> str:
    return "schedule" if isinstance(value, dict | Schedule) else "number"


_Either = Annotated[
    Annotated[float, Tag("number")] | Annotated[Schedule, Tag("schedule")], Discriminator(_kind)
]
Weight = Annotated[
    _Either, AfterValidator(_bounded(lambda value: value >= 0, "greater than or equal to 0"))
]
Temperature = Annotated[
    _Either, AfterValidator(_bounded(lambda value: value > 0, "greater than 0"))
]


class AnyTerm(Config):
    """What all terms share. learner: who learns by it; a name for several gives each a share."""

    match: str
    weight: Weight = 1.0
    learner: Name = STUDENT


class LabelsTerm(AnyTerm):
    """Fit the labels of the training data; the loss follows from the task's problem type."""

    match: Literal["labels"]


class TaughtTerm(AnyTerm):
    """What all terms share that follow somebody.

    teacher: whom. What is followed stands still: no gradient goes there. A name for several gives
    the mean over all pairs of a learner and another it follows.
    follow: of several, all `others` but oneself and what is made for oneself; the `next` one only,
    the first after the last; or `own`, what is made for oneself, or what one is made for.
    """

    teacher: Name = TEACHER
    follow: Literal["others", "next", "own"] = "others"


class LogitsTerm(TaughtTerm):
    """Follow the teacher's answers, softened by `temperature`.

    tokens: for a task that answers for each token, those that have a label, or all of the text.
    """

    match: Literal["logits"]
    loss: Literal["kl", "reverse_kl", "mse", "cosine"] = "kl"
    temperature: Temperature = 1.0
    tokens: Literal["labelled", "all"] = "labelled"

    @model_validator(mode="after")
    def _temperature_is_used(self) -> Self:
        if self.loss not in {"kl", "reverse_kl"} and self.temperature != 1.0:
            raise ValueError(f"loss: {self.loss} compares raw logits, so temperature must stay 1")
        return self


class MarginTerm(TaughtTerm):
    """Follow the differences of the teacher's scores between rows: a ranking, whatever its scale.

    candidates: how many rows of one question, its first text, are compared; None compares all
    rows of a batch. negatives: a question with fewer is given second texts of others.
    loss: `mse` of differences, or `kl` of a softmax over the candidates.
    For embeddings, whose score is how alike the two texts' vectors are: similarity, and scale, what
    a cosine of 1 is worth in standard deviations of a cross-encoder's scores.
    """

    match: Literal["margin"]
    candidates: int | None = Field(default=None, ge=2)
    negatives: bool = False
    loss: Literal["mse", "kl"] = "mse"
    similarity: Literal["cosine", "dot"] = "cosine"
    scale: PositiveFloat = 5.0

    @model_validator(mode="after")
    def _options_are_used(self) -> Self:
        if self.candidates is None and self.negatives:
            raise ValueError("negatives fill up the candidates of a question: say how many")
        if self.candidates is None and self.loss == "kl":
            raise ValueError("loss: kl is over the candidates of a question: say how many")
        if self.similarity == "dot" and "scale" in self.model_fields_set:
            raise ValueError("scale belongs to similarity: cosine, a dot product has its own")
        return self


class MappedTerm(TaughtTerm):
    """What all terms share that compare layers. remap_steps: with `layers: emd`, how often.

    in_turn: one pair after the other counts alone, in the map's order, in equal shares of so much
    of the stage's steps; the last goes on.
    """

    layers: LayerMap = "uniform"
    remap_steps: PositiveInt = 50
    in_turn: PositiveFloat | None = Field(default=None, le=1)

    @model_validator(mode="after")
    def _remap_steps_are_used(self) -> Self:
        if self.layers != "emd" and "remap_steps" in self.model_fields_set:
            raise ValueError("remap_steps belongs to layers: emd, other maps do not change")
        return self

    @model_validator(mode="after")
    def _turns_have_an_order(self) -> Self:
        if self.layers == "emd" and self.in_turn is not None:
            raise ValueError("layers: emd weighs all pairs at once, so in_turn must be left out")
        return self


class HiddenStatesTerm(MappedTerm):
    """Follow the teacher's hidden states, through a learned projection where widths differ.

    tokens: by default all, or the mean of each text for models that read other tokens.
    """

    match: Literal["hidden_states"]
    loss: Literal["mse", "normalized_mse", "layer_normed_mse", "cosine"] = "mse"
    tokens: Tokens | None = None


class FeaturesTerm(TaughtTerm):
    """Follow what the last layer of the teacher's head reads: a text, or each token, as a vector.

    Through a learned projection where widths differ.
    """

    match: Literal["features"]
    loss: Literal["mse", "normalized_mse", "cosine"] = "mse"


class EmbeddingsTerm(TaughtTerm):
    """Follow what the teacher feeds its first layer.

    tokens: as for hidden_states.
    """

    match: Literal["embeddings"]
    loss: Literal["mse", "normalized_mse", "layer_normed_mse", "cosine"] = "mse"
    tokens: Tokens | None = None


class AttentionScoresTerm(MappedTerm):
    """Follow attention before its softmax, head by head.

    heads: `common` joins neighbouring heads of the model that has more of them, to the largest
    number that divides both, by their mean; None for models of as many heads.
    """

    match: Literal["attention_scores"]
    loss: Literal["mse"] = "mse"
    heads: Literal["common"] | None = None


class AttentionProbsTerm(MappedTerm):
    """Follow where the teacher's heads look, head by head.

    heads: as for attention_scores; joined heads look where they do in the geometric mean.
    """

    match: Literal["attention_probs"]
    loss: Literal["kl"] = "kl"
    heads: Literal["common"] | None = None


class RelationsTerm(MappedTerm):
    """Follow how tokens relate to each other in queries, keys or values.

    of: one of them with itself, or queries with keys. heads: into how many relation heads both
    models' are cut; `auto` for the most, up to MiniLMv2's 48, that divide both widths; `common`
    for the most that divide both models' own; None for their own, as many in both.
    """

    match: Literal["relations"]
    of: Literal["query", "key", "value", "query-key"]
    heads: PositiveInt | Literal["auto", "common"] | None = None
    layers: LayerMap = LAST_TO_LAST


class FlowTerm(TaughtTerm):
    """Follow how each mapped layer's states become the next one's, from the embeddings on."""

    match: Literal["flow"]
    layers: FixedLayerMap = "uniform"


class SelectivityTerm(MappedTerm):
    """Follow on which tokens neurons are active, whichever neurons and however many there are."""

    match: Literal["selectivity"]


class ContrastiveTerm(MappedTerm):
    """Find the teacher's state of the first token among those of the batch's other rows."""

    match: Literal["contrastive"]
    temperature: Temperature = 0.1
    layers: LayerMap = LAST_TO_LAST


class AdversarialTerm(MappedTerm):
    """Give hidden states that a discriminator takes for the other's; it learns at the same time.

    layers: pairs whose states are compared, the last ones by default.
    """

    match: Literal["adversarial"]
    layers: FixedLayerMap = LAST_TO_LAST


class ParametersTerm(TaughtTerm):
    """Follow the teacher's weights, through learned projections that all layers share.

    direction: the teacher's projected `down` to the student's sizes, the student's `up` to the
    teacher's, or both. Weights outside the layers are compared where both have them.
    """

    match: Literal["parameters"]
    layers: FixedLayerMap = "uniform"
    direction: Literal["down", "up", "both"] = "both"


Term = Annotated[
    LogitsTerm
    | LabelsTerm
    | MarginTerm
    | HiddenStatesTerm
    | FeaturesTerm
    | EmbeddingsTerm
    | AttentionScoresTerm
    | AttentionProbsTerm
    | RelationsTerm
    | FlowTerm
    | SelectivityTerm
    | ContrastiveTerm
    | AdversarialTerm
    | ParametersTerm,
    Field(discriminator="match"),
]


def counts(term: AnyTerm) -> bool:
    """Whether a term weighs anything at some time."""
    weight = term.weight
    ends = (weight.start, weight.end) if isinstance(weight, Schedule) else (weight,)
    return any(ends)
