"""The student and the terms of a stage as one module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from distill.companions.base import Cast, Companion, MakeStudent, Scene
from distill.companions.branches import BranchModels
from distill.companions.copies import ModelCopies
from distill.companions.ensemble import EnsembleAnswers
from distill.companions.exits import ExitHeads
from distill.companions.fusion import FusedAnswers
from distill.companions.hybrid import HybridModel
from distill.companions.peers import PeerModels
from distill.companions.views import JointAnswers, PartnerAnswers
from distill.companions.virtual import VirtualTeacher
from distill.companions.weighing import GatedAnswers, MixedAnswers
from distill.data.tokenizers import of_whole_texts
from distill.data.views import view_inputs
from distill.objectives.adversarial import Adversarial
from distill.objectives.answers import Labels, Logits, Margin
from distill.objectives.attention import Attentions, Relations
from distill.objectives.base import Batch, Objective, Totals
from distill.objectives.layers import Contrastive, Features, Flow, HiddenStates, Selectivity
from distill.objectives.parameters import Parameters
from distill.recipe.companions import Companion as CompanionConfig
from distill.recipe.companions import Ensemble
from distill.recipe.config import Stage
from distill.recipe.terms import (
    STUDENT,
    TEACHER,
    TEACHERS,
    AnyTerm,
    Name,
    TaughtTerm,
    at,
    counts,
    is_teacher,
)
from distill.signals.capture import Needs, Signals, capture
from distill.signals.shapes import Setting
from distill.students.two_vocabularies import BothVocabularies
from distill.training.layer_rates import Pace
from edge.errors import ConfigError

# What a recipe's `match` builds.
OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "logits": Logits,
    "labels": Labels,
    "margin": Margin,
    "features": Features,
    "hidden_states": HiddenStates,
    "embeddings": HiddenStates,
    "attention_scores": Attentions,
    "attention_probs": Attentions,
    "relations": Relations,
    "flow": Flow,
    "selectivity": Selectivity,
    "contrastive": Contrastive,
    "adversarial": Adversarial,
    "parameters": Parameters,
}
# What a stage's companion of a `kind` builds.
COMPANIONS: dict[str, Callable[..., Companion]] = {
    "peers": PeerModels,
    "branches": BranchModels,
    "ensemble": EnsembleAnswers,
    "hybrid": HybridModel,
    "copies": ModelCopies,
    "gate": GatedAnswers,
    "mixtures": MixedAnswers,
    "fusion": FusedAnswers,
    "exits": ExitHeads,
    "virtual": VirtualTeacher,
    "partner": PartnerAnswers,
    "transformed": JointAnswers,
}
# Inputs, labels, and what teachers say.
Read = tuple[Mapping[str, Tensor], Tensor | None, Mapping[Name, Signals]]
_TALLIED = ("samples", "tokens", "labelled")


class Learner(nn.Module):
    """The student and what is trained with it: one module to optimise, clip, save and resume.

    Only `student` is ever exported. names: a column for each term. needs: what the teacher has to
    give beside its answers; asked: the same for each teacher that is listened to. weights: of
    the terms, at the step that `advance` told.
    """

    # Trainer must not believe that a loss was scaled for it.
    accepts_loss_kwargs = False

    def __init__(
        self,
        student: Any,
        stage: Stage,
        setting: Setting,
        make_student: MakeStudent | None = None,
        teacher: Any = None,
    ) -> None:
        super().__init__()
        if stage.needs_teacher and not setting.teachers:
            raise ConfigError(f"stage '{stage.name}' learns from a teacher: name it with --teacher")
        who = partial(_who, stage, setting.teachers)
        terms = [term for term in stage.terms if counts(term)]
        self.student = student
        self.pace = Pace(student, stage)
        self.mixed: BothVocabularies | None = None
        if stage.mixing is not None:
            self.mixed = BothVocabularies(student, teacher, setting, stage.name)
            setting = replace(setting, vocabularies=self.mixed.sizes)
        self._reading = setting.reading
        self._companions: list[Companion] = []
        configs = _companions(stage, setting)
        models = {STUDENT: student}
        for config in configs:
            cast = Cast(student, setting, make_student, who, teacher, dict(models))
            companion = COMPANIONS[config.kind](config, cast)
            setting = replace(setting, others={**setting.others, **companion.shapes})
            self._companions.append(companion)
            models |= companion.whole_models
        if teacher is not None and setting.teachers:
            models[setting.teachers[0]] = teacher
        setting = replace(setting, models=models)
        self.companions = nn.ModuleList(self._companions)
        self._terms = [_parts(term, stage, setting, who) for term in terms]
        self.objectives = nn.ModuleList(one for parts in self._terms for one in parts)
        self.names = _names([term.match for term in terms])
        needs = self._all_needs()
        self.needs = needs.get(TEACHER, frozenset())
        heard = {one.source for parts in self._terms for one in parts}
        heard |= {name for config in configs for read in config.reads for name in who(read)}
        self.asked = {n: needs.get(n, frozenset()) for n in setting.teachers if n in heard}
        self._own_needs = needs.get(STUDENT, frozenset())
        self._weights = [term.weight for term in terms]
        self._scheduled = not all(isinstance(weight, float) for weight in self._weights)
        weights = torch.tensor([at(weight, 0.0) for weight in self._weights])
        self.register_buffer("weights", weights, persistent=False)

    def advance(self, step: int, steps: int) -> None:
        """Set weights, temperatures and maps for the optimiser step after `step` of `steps`.

        They follow from the step alone, or from what a training checkpoint holds.
        """
        progress = step / max(steps, 1)
        self.pace.advance(progress)
        for parts in self._terms:
            for objective in parts:
                objective.advance(step, progress)
        for companion in self._companions:
            companion.advance(step, progress)
        if self._scheduled:
            values = [at(weight, progress) for weight in self._weights]
            self.get_buffer("weights").copy_(torch.tensor(values))

    def train(self, mode: bool = True) -> Self:
        """As of any module; what never learns in this stage stays in eval mode."""
        super().train(mode)
        self.pace.rest()
        return self

    def tally(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What terms average over, counted in one batch with its labels; see `totals`."""
        mask, labels = batch["attention_mask"], batch.get("labels")
        samples, tokens = mask.new_tensor(len(mask)), mask.sum()
        labelled = samples
        if labels is not None:
            labelled = self._reading.labelled(labels, mask).sum()
        return torch.stack([samples, tokens, labelled]).float()

    def totals(self, counts: Tensor) -> dict[str, Tensor]:
        """Tallies of an optimiser step, summed, by name; none is 0."""
        return dict(zip(_TALLIED, counts.clamp(min=1).unbind(), strict=True))

    def write(self, folder: Path) -> None:
        """Add what companions keep to the student's checkpoint, which is in `folder`."""
        for companion in self._companions:
            companion.write(folder)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        labels: Tensor | None,
        taught: Signals | Mapping[Name, Signals] | None,
        totals: Totals,
    ) -> Tensor:
        """Each term's unweighted value, shape (terms,), in the order of `names`.

        taught: what the teacher says, or by name what each of several does.
        """
        batch = self._said(inputs, labels, taught, totals)
        return torch.stack([_value(parts, batch) for parts in self._terms])

    @property
    def watches(self) -> bool:
        """Whether a term is to be shown some batches before the first step; see `settle`."""
        return any(one.watches for parts in self._terms for one in parts)

    def settle(self, batches: Iterable[Read]) -> list[str]:
        """Start learned maps where they bring the student's states nearest to the others'.

        Gives what a person should know of what terms compare.
        """
        learning = self.training
        watching = [one for parts in self._terms for one in parts if one.watches]
        self.eval()
        with torch.no_grad(), torch.random.fork_rng():
            for read in batches:
                batch = self._said(*read, {})
                for one in watching:
                    if one.source is None or batch.hears(one.source):
                        one.watch(batch)
        self.train(learning)
        return [remark for one in watching for remark in one.settle()]

    def _said(
        self,
        inputs: Mapping[str, Tensor],
        labels: Tensor | None,
        taught: Signals | Mapping[Name, Signals] | None,
        totals: Totals,
    ) -> Batch:
        """What everybody says about a batch."""
        with contextlib.nullcontext() if self.mixed is None else self.mixed.read():
            said = capture(self.student, inputs, self._own_needs)
        heard = {TEACHER: taught} if isinstance(taught, Signals) else taught
        sources: dict[Name, Signals] = dict(heard or {})
        for companion in self._companions:
            sources |= companion(Scene(inputs, labels, {STUDENT: said, **sources}))
        views = {name: view_inputs(inputs, name) for name in sources}
        masks = {name: view["attention_mask"] for name, view in views.items() if view}
        return Batch(said, sources, labels, inputs["attention_mask"], totals, masks)

    def _all_needs(self) -> dict[Name, Needs]:
        """What everybody has to give beside answers; companions are told theirs, last one first."""
        needs: dict[Name, Needs] = {}

        def add(name: Name, wanted: Needs) -> None:
            needs[name] = needs.get(name, frozenset()) | wanted

        for objective in (one for parts in self._terms for one in parts):
            add(objective.learner, objective.ours)
            if objective.source is not None:
                add(objective.source, objective.theirs)
        for companion in reversed(self._companions):
            companion.answer_for({name: needs.get(name, frozenset()) for name in companion.shapes})
            for name, wanted in companion.asks.items():
                add(name, wanted)
        return needs


def _who(stage: Stage, teachers: tuple[Name, ...], name: Name) -> tuple[Name, ...]:
    """Those whom a name stands for; raises ConfigError for a teacher that there is not."""
    brought = name in {TEACHER, *stage.members}
    if is_teacher(name) and not brought and name not in {TEACHERS, *teachers}:
        there = "one teacher, called teacher" if len(teachers) == 1 else " and ".join(teachers)
        raise ConfigError(
            f"stage '{stage.name}' speaks of '{name}', and there is {there or 'no teacher'}: "
            "name another with --teacher"
        )
    return teachers if name == TEACHERS else stage.who(name)


def _companions(stage: Stage, setting: Setting) -> list[CompanionConfig]:
    """Those of a stage, and how several teachers are one where it does not say so.

    One teacher needs nobody to be called so.
    """
    single = setting.teacher is not None
    found = [one for one in stage.companions if not (single and one.name == TEACHER)]
    if len(setting.teachers) > 1 and TEACHER not in stage.members:
        return [Ensemble(kind="ensemble", name=TEACHER), *found]
    return found


def _parts(
    term: AnyTerm, stage: Stage, setting: Setting, who: Callable[[Name], tuple[Name, ...]]
) -> list[Objective]:
    """The term once for each learner and each other it follows.

    Raises ConfigError when nobody follows anybody but themselves.
    """
    build = OBJECTIVES[term.match]
    _check_alike(term, setting, who)
    learners = who(term.learner)
    if not isinstance(term, TaughtTerm):
        return [build(term.model_copy(update={"learner": name}), setting) for name in learners]
    pairs = _pairs(term, learners, who(term.teacher), stage.brought.kin)
    if not pairs:
        raise ConfigError(
            f"match: {term.match} of stage '{stage.name}' lets {term.learner} follow "
            f"{term.teacher}, which is nobody else: name another teacher"
        )
    if not setting.same_words and any(is_teacher(name) for _, name in pairs):
        term = of_whole_texts(term, setting.reading)
    return [build(term.model_copy(update={"learner": a, "teacher": b}), setting) for a, b in pairs]


def _pairs(
    term: TaughtTerm,
    learners: Sequence[Name],
    followed: Sequence[Name],
    kin: Mapping[Name, Name],
) -> list[tuple[Name, Name]]:
    """Who follows whom."""
    if term.follow == "next":
        following = dict(zip(followed, (*followed[1:], *followed[:1]), strict=True))
        return [(a, following[a]) for a in learners if following.get(a, a) != a]

    def akin(a: Name, b: Name) -> bool:
        return kin.get(a) == b or kin.get(b) == a

    own = term.follow == "own"
    return [(a, b) for a in learners for b in followed if a != b and akin(a, b) == own]


def _check_alike(term: AnyTerm, setting: Setting, who: Callable[[Name], tuple[Name, ...]]) -> None:
    """Raise ConfigError where models that read other texts would be compared text by text."""
    if not isinstance(term, TaughtTerm) or term.match == "margin":
        return
    apart = [name for name in who(term.teacher) if name in setting.spreads]
    if apart:
        raise ConfigError(
            f"match: {term.match} compares what two models say of the same text, and {apart[0]} is "
            "a cross-encoder, which reads two texts as one: use match: margin, as bi-encoder does"
        )


def _value(parts: Sequence[Objective], batch: Batch) -> Tensor:
    """The sum over learners, as if each were trained alone, of the mean over whom it follows.

    Those who say nothing yet are not followed.
    """
    heard = [one for one in parts if one.source is None or batch.hears(one.source)]
    if not heard:
        return 0.0 * next(iter(batch.student.outputs.values())).float().sum()
    learners = len({objective.learner for objective in heard})
    return torch.stack([objective(batch) for objective in heard]).mean() * learners


def _names(matches: Sequence[str]) -> list[str]:
    """A column name for each term; a match used again is numbered."""
    return [
        match if matches[:i].count(match) == 0 else f"{match}_{matches[:i].count(match) + 1}"
        for i, match in enumerate(matches)
    ]
