"""Companions as data: who takes part in a stage beside the student and the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from typing_extensions import Self

from distill.recipe.student import Share, Spec
from distill.recipe.terms import STUDENT, TEACHER, TEACHERS, Name, Schedule, Weight
from edge.config import Config


class Brought(NamedTuple):
    """Whom a companion brings.

    members: who speaks. groups: names that stand for several. kin: of members that are made for
    one of those who take part, whom.
    """

    members: tuple[Name, ...]
    groups: Mapping[Name, tuple[Name, ...]] = {}
    kin: Mapping[Name, Name] = {}


class AnyCompanion(Config):
    """What all companions share. kind: which one; name: what terms call it."""

    kind: str
    name: Name

    @property
    def members(self) -> tuple[Name, ...]:
        """Who speaks: each has signals of its own that terms can name."""
        return (self.name,)

    @property
    def groups(self) -> Mapping[Name, tuple[Name, ...]]:
        """Names that stand for several of those who take part."""
        return {}

    @property
    def reads(self) -> tuple[Name, ...]:
        """Whose signals it is made of, beside the student's."""
        return ()

    @property
    def views(self) -> Mapping[Name, str]:
        """Texts that come with each row of a batch, by name; see `distill.data.views`."""
        return {}

    @property
    def reads_labels(self) -> bool:
        """Whether the rows need labels for it."""
        return False

    def brings(self, who: Callable[[Name], tuple[Name, ...]]) -> Brought:
        """Whom it brings; `who` says for whom the names of those before it stand."""
        return Brought(self.members, self.groups)


class OneForEach(AnyCompanion):
    """What those companions share that bring one for each of several: NAME-peer-1, NAME-student.

    of: a name for those; NAME stands for all that are brought.
    """

    of: Name = "cohort"

    @property
    def reads(self) -> tuple[Name, ...]:
        return (self.of,)

    def brings(self, who: Callable[[Name], tuple[Name, ...]]) -> Brought:
        kin = {f"{self.name}-{one}": one for one in who(self.of)}
        return Brought(tuple(kin), {self.name: tuple(kin)}, kin)


class Cohort(AnyCompanion):
    """What those companions share that are models trained beside the student and thrown away.

    count: how many; they are called NAME-1, NAME-2 ... and all of them NAME; with the student they
    are the `cohort`.
    """

    count: PositiveInt

    @property
    def members(self) -> tuple[Name, ...]:
        return tuple(f"{self.name}-{i + 1}" for i in range(self.count))

    @property
    def groups(self) -> Mapping[Name, tuple[Name, ...]]:
        return {self.name: self.members, "cohort": (STUDENT, *self.members)}


class Peers(Cohort):
    """Models of their own. student: their SPEC (`distill.recipe.student`), or the student's."""

    kind: Literal["peers"]
    name: Name = "peer"
    count: PositiveInt = 1
    student: Spec | None = None


class Ensemble(AnyCompanion):
    """One answer made of several.

    of: a name for several. mean: of their probabilities, or of their logits; scores and embeddings
    are averaged as they are. temperature: at which probabilities are averaged; at the term's own,
    following the mean is the mean of following each.
    weights: numbers, one for each; or for each sample `entropy`, more for who is sure, `labels`,
    more for who is right, alike where there is no label, `best`, who is most right alone, or
    `convex`, those of the logits' mean that is most right; or `random`, one alone at each step.
    min-logit: in place of a mean, each class has its least logit, the label's taken from all.
    drop: the probability with which each is left out of a step; one always stays.
    Sources: You et al. 2017, "Learning from Multiple Teacher Networks", 3.1 (the mean of softened
    probabilities); Fukuda et al. 2017, "Efficient Knowledge Distillation from an Ensemble of
    Teachers", 2 (one at a time); Zhang et al. 2022, "Confidence-Aware Multi-Teacher Knowledge
    Distillation", eq. 3 (labels), and Kwon et al. 2020 for entropy in place of the labels' loss;
    Son et al. 2021, "Densely Guided Knowledge Distillation", 3.3 (drop); Guo et al. 2020, "Online
    Knowledge Distillation via Collaborative Learning", 3.2 (best, convex, min-logit).
    """

    kind: Literal["ensemble"]
    name: Name = "ensemble"
    of: Name = TEACHERS
    mean: Literal["probabilities", "logits", "min-logit"] = "probabilities"
    temperature: PositiveFloat = 1.0
    weights: (
        tuple[NonNegativeFloat, ...]
        | Literal["equal", "entropy", "labels", "best", "convex", "random"]
    ) = "equal"
    drop: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _somebody_weighs(self) -> Self:
        if isinstance(self.weights, tuple) and not any(self.weights):
            raise ValueError("all weights are 0: nobody would be listened to")
        return self

    @model_validator(mode="after")
    def _weights_suit_the_mean(self) -> Self:
        if self.weights == "convex" and self.mean != "logits":
            raise ValueError("weights: convex belongs to mean: logits")
        if self.mean == "min-logit" and (self.weights != "equal" or self.drop):
            raise ValueError("mean: min-logit weighs nobody: leave out weights and drop")
        return self

    @property
    def reads(self) -> tuple[Name, ...]:
        return (self.of,)

    @property
    def reads_labels(self) -> bool:
        return self.mean == "min-logit" or self.weights in ("labels", "best", "convex")


class Hybrid(AnyCompanion):
    """The teacher, with the student's layers in place of blocks of its own.

    Each student layer stands for the teacher's layers up to the one it is mapped to by `uniform`;
    only it learns. share: of the blocks that are the student's, by the share of the steps. order:
    `up`, block by block from the lowest, or `random`, each drawn anew for every batch with `share`
    for its probability, at least one of them.
    Sources: Wang et al. 2018, "Progressive Blockwise Knowledge Distillation", 3 (up); Xu et al.
    2020, "BERT-of-Theseus", 3 (random; there the share grows linearly, and then stays at 1).
    """

    kind: Literal["hybrid"]
    name: Name = "hybrid"
    order: Literal["up", "random"] = "up"
    share: Weight = Schedule(start=0, end=1)

    @property
    def reads(self) -> tuple[Name, ...]:
        return (TEACHER,)


class Branches(Cohort):
    """Models that share the student's embeddings and lowest layers, and have the rest of their own.

    The student is a branch as well. shared_layers: how many, or which part of the student's.
    student: the SPEC of what the rest starts from, of the student's depth and width; the student's
    own by default.
    """

    kind: Literal["branches"]
    name: Name = "branch"
    count: PositiveInt = 2
    shared_layers: NonNegativeInt | Share = "1/2"
    student: Spec | None = None


class Copies(OneForEach):
    """Copies that stand still, made again of the models they are of every `every` steps.

    every: or which share of the stage. waits: whether they say nothing until they were made again
    once; what follows them does not count until then.
    Sources: Anil et al. 2018, "Large Scale Distributed Neural Network Training through Online
    Distillation", 2 (codistillation with stale predictions); Yang et al. 2019, "Snapshot
    Distillation", 3 (the end of a cycle of the learning rate teaches the next one).
    """

    kind: Literal["copies"]
    name: Name = "stale"
    every: PositiveInt | Share = 50
    waits: bool = False

    @model_validator(mode="after")
    def _a_share_comes_again(self) -> Self:
        if isinstance(self.every, str):
            part, _, whole = self.every.partition("/")
            if not 0 < int(part) <= int(whole):
                raise ValueError(f"every: {self.every} is no share of a stage: use 1/3, or steps")
        return self


class Gate(AnyCompanion):
    """The sum of several answers, weighed for each text by a learned gate; gradients reach all.

    layer: the student's hidden state that the gate reads; 0 is the embeddings.
    Source: Lan et al. 2018, "Knowledge Distillation by On-the-Fly Native Ensemble", 3.2.
    """

    kind: Literal["gate"]
    name: Name = "ensemble"
    of: Name = "cohort"
    layer: NonNegativeInt | Share = "1/2"

    @property
    def reads(self) -> tuple[Name, ...]:
        return (self.of,)


class Mixtures(OneForEach):
    """For each of several, a mixture of all their answers, weighed by its own attention to them.

    Answers and states stand still here: terms with a mixture for learner train the attention.
    width: of the learned projections that are compared.
    Source: Chen et al. 2020, "Online Knowledge Distillation with Diverse Peers", 3.2.
    """

    kind: Literal["mixtures"]
    name: Name = "mixture"
    of: Name = "peer"
    width: PositiveInt = 64


class Fusion(AnyCompanion):
    """A classifier of its own on the last hidden states of several, joined; gradients reach all.

    width: of what they are fused into; the student's by default.
    Source: Kim et al. 2019, "Feature Fusion for Online Mutual Knowledge Distillation", 3.1.
    """

    kind: Literal["fusion"]
    name: Name = "fused"
    of: Name = "cohort"
    width: PositiveInt | None = None

    @property
    def reads(self) -> tuple[Name, ...]:
        return (self.of,)


class Exits(AnyCompanion):
    """Answers after some of the student's layers, by heads of its own kind; kept with it.

    layers: how many, evenly spread, or after which layers, from 1; the shallowest is NAME-1, and
    all of them are NAME. threshold: below which uncertainty, 0 to 1, an answer is taken when the
    trained student runs; see `edge.models.exits`. detach: the layers below learn nothing from
    them, as in the second stage of DeeBERT.
    Sources: Zhang et al. 2019, "Be Your Own Teacher", 3; Xin et al. 2020, "DeeBERT", 3.
    """

    kind: Literal["exits"]
    name: Name = "exit"
    layers: PositiveInt | Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = 2
    threshold: NonNegativeFloat = 0.2
    detach: bool = False

    @model_validator(mode="after")
    def _layers_rise(self) -> Self:
        if isinstance(self.layers, tuple) and sorted(set(self.layers)) != list(self.layers):
            raise ValueError("exits need different layers, the shallowest first, as in [2, 4]")
        return self

    @property
    def members(self) -> tuple[Name, ...]:
        count = self.layers if isinstance(self.layers, int) else len(self.layers)
        return tuple(f"{self.name}-{i + 1}" for i in range(count))

    @property
    def groups(self) -> Mapping[Name, tuple[Name, ...]]:
        return {self.name: self.members}


class Virtual(AnyCompanion):
    """A teacher that is no model: `probability` on the right class, the rest evenly on the others.

    Of several labels, each is right with that probability.
    Source: Yuan et al. 2020, "Revisiting Knowledge Distillation via Label Smoothing
    Regularization" (its teacher-free regularisation).
    """

    kind: Literal["virtual"]
    name: Name = "virtual"
    probability: float = Field(default=0.99, ge=0.5, lt=1)

    @property
    def reads_labels(self) -> bool:
        return True


class Partner(AnyCompanion):
    """The student reading another text of the same class, another one in every epoch.

    A text that is the only one of its class, or has none, reads itself again.
    Source: Yun et al. 2020, "Regularizing Class-wise Predictions via Self-knowledge
    Distillation".
    """

    kind: Literal["partner"]
    name: Name = "partner"

    @property
    def views(self) -> Mapping[Name, str]:
        return {self.name: "partner"}

    @property
    def reads_labels(self) -> bool:
        return True


class Transformed(AnyCompanion):
    """The student reading changed texts: a head of its own tells class and change in one.

    changes: beside the text as it is, `mask` hides a quarter of its words, `shuffle` reorders
    words within four, `swap` puts the second half first. NAME-1 is the text itself, NAME-2 the
    first change and so on, and all of them NAME; `aggregate` is what they say together.
    Source: Lee, Hwang and Shin 2020, "Self-supervised Label Augmentation via Input
    Transformations"; changes of images there.
    """

    kind: Literal["transformed"]
    name: Name = "view"
    changes: Annotated[tuple[Literal["mask", "shuffle", "swap"], ...], Field(min_length=1)] = (
        "mask",
        "shuffle",
        "swap",
    )

    @property
    def readers(self) -> tuple[Name, ...]:
        """One for each way a text is read."""
        return tuple(f"{self.name}-{i + 1}" for i in range(len(self.changes) + 1))

    @property
    def members(self) -> tuple[Name, ...]:
        return (*self.readers, "aggregate")

    @property
    def groups(self) -> Mapping[Name, tuple[Name, ...]]:
        return {self.name: self.readers}

    @property
    def views(self) -> Mapping[Name, str]:
        return dict(zip(self.readers[1:], self.changes, strict=True))


Companion = Annotated[
    Peers
    | Branches
    | Ensemble
    | Hybrid
    | Copies
    | Gate
    | Mixtures
    | Fusion
    | Exits
    | Virtual
    | Partner
    | Transformed,
    Field(discriminator="kind"),
]
