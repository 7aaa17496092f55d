"""A recipe as data: stages made of terms, and the run that uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from typing_extensions import Self

from distill.recipe.augmentations import Augmentation
from distill.recipe.companions import Brought
from distill.recipe.companions import Companion as CompanionConfig
from distill.recipe.parts import EVERYTHING, Part, Unfreeze
from distill.recipe.student import Spec
from distill.recipe.terms import (
    STUDENT,
    TEACHER,
    TEACHERS,
    LabelsTerm,
    MarginTerm,
    Name,
    TaughtTerm,
    Term,
    counts,
    is_teacher,
)
from distill.recipe.tokens import Masking, Mixing
from edge.config import Config, load_yaml
from edge.data import Columns
from edge.errors import unknown_name
from edge.provenance import NO_EFFECT, PRESENCE, CachePath, Counts, OutputPath, Word
from edge.sources import CheckpointSource, DataSource

RECIPES = Path(__file__).parent.parent / "recipes"
DEFAULT_RECIPE = "kd-hidden"
_ON_ANSWERS = {"labels", "logits", "margin"}


class Stage(Config):
    """One training run: its terms, its texts and its optimiser (AdamW).

    augment: texts besides the labelled ones, which terms that follow a teacher learn from.
    masking: for a task that guesses hidden tokens, which ones.
    mixing: the student, which has tokens of its own, reads some words in its teacher's meanwhile.
    translations: for embeddings, the second text of a row says the same in another language: the
    teacher reads the first one for both.
    cycles: how often a cosine schedule falls from the full learning rate to 0.
    batch_size: rows of one step of all processes together, before accumulation.
    early_stopping: end after so many evaluations (one an epoch) without a better metric, and take
    the weights that had the best one.
    companions: who takes part beside the student and the teacher.
    train: which parts of the student learn: `all`, `embeddings`, `layers`, `head`, a layer's number
    (from 1, -1 is the last), a module by name, or several of these. unfreeze: one part after the
    other. layer_decay: each part learns at so much of the rate of the one above it.
    """

    name: Word = Field(default="train", pattern=r"^[a-z0-9][a-z0-9-]*$")
    terms: tuple[Term, ...] = Field(min_length=1)
    companions: tuple[CompanionConfig, ...] = ()
    translations: bool = False
    augment: tuple[Augmentation, ...] = ()
    masking: Masking | None = None
    mixing: Mixing | None = None
    epochs: PositiveFloat = 3.0
    max_steps: PositiveInt | None = None
    learning_rate: PositiveFloat = 5e-5
    batch_size: PositiveInt = 32
    gradient_accumulation: PositiveInt = 1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    cycles: PositiveInt = 1
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: PositiveFloat = 1e-8
    early_stopping: PositiveInt | None = None
    train: Literal["all"] | Part | Annotated[tuple[Part, ...], Field(min_length=1)] = EVERYTHING
    unfreeze: Unfreeze | None = None
    layer_decay: PositiveFloat = Field(default=1.0, le=1)

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if not any(counts(term) for term in self.terms):
            raise ValueError(f"stage '{self.name}' has no term with a weight above 0")
        return self

    @model_validator(mode="after")
    def _everyone_is_known(self) -> Self:
        known = {STUDENT, TEACHER, TEACHERS, *self.members, *self.groups}
        named = [term.learner for term in self.terms]
        named += [term.teacher for term in self.terms if isinstance(term, TaughtTerm)]
        for name in (*named, *(name for one in self.companions for name in one.reads)):
            # How many teachers there are is known when a run starts.
            if name not in known and not is_teacher(name):
                raise ValueError(
                    f"stage '{self.name}' speaks of '{name}', and only "
                    f"{', '.join(sorted(known))} take part: add it to companions"
                )
        return self

    @model_validator(mode="after")
    def _companions_come_in_order(self) -> Self:
        there: set[Name] = set()
        for companion in self.companions:
            made_of = {one for name in companion.reads for one in self.who(name)}
            later = sorted((made_of & set(self.members)) - there)
            if later:
                raise ValueError(
                    f"companion '{companion.name}' of stage '{self.name}' is made of "
                    f"'{later[0]}', who comes after it: list it later"
                )
            own = companion.brings(self.who).members
            twice = sorted({STUDENT, *there} & set(own))
            if twice:
                raise ValueError(
                    f"stage '{self.name}' has two that are called '{twice[0]}': "
                    "give a companion another name"
                )
            there.update(own)
        return self

    @model_validator(mode="after")
    def _augmented_texts_are_answered(self) -> Self:
        if self.augment and not self.needs_teacher:
            raise ValueError(
                f"stage '{self.name}' has augment and no term that follows a teacher: new texts "
                "have no labels, so add match: logits or another such term, or take augment out"
            )
        return self

    @model_validator(mode="after")
    def _the_student_alone_mixes(self) -> Self:
        # An ensemble is made of answers, all others read the texts themselves.
        others = [one.name for one in self.companions if one.kind != "ensemble"]
        if self.mixing is not None and others:
            raise ValueError(
                f"stage '{self.name}' has mixing, which only the student can read, and companion "
                f"'{others[0]}': give them stages of their own"
            )
        return self

    @model_validator(mode="after")
    def _cycles_have_a_shape(self) -> Self:
        if self.cycles > 1 and (self.schedule != "cosine" or self.warmup_ratio):
            raise ValueError(
                f"stage '{self.name}' has cycles: {self.cycles}, which start at the full learning "
                "rate and fall to 0: set schedule: cosine and warmup_ratio: 0"
            )
        return self

    @model_validator(mode="after")
    def _candidates_fill_batches(self) -> Self:
        for term in self.terms:
            if isinstance(term, MarginTerm) and self.batch_size % (term.candidates or 1):
                raise ValueError(
                    f"batch_size {self.batch_size} cuts questions of {term.candidates} candidates: "
                    f"use a multiple of {term.candidates}"
                )
        return self

    @model_validator(mode="after")
    def _questions_are_of_one_size(self) -> Self:
        found = {(term.candidates, term.negatives) for term in self._margins}
        if len(found) > 1:
            raise ValueError(
                f"stage '{self.name}' compares candidates in several ways: all its terms of match: "
                "margin need the same candidates and negatives"
            )
        if self.questions and self.augment:
            raise ValueError(
                f"stage '{self.name}' has candidates and augment: new texts belong to no question, "
                "so take augment out"
            )
        return self

    @property
    def _margins(self) -> list[MarginTerm]:
        found = [t for t in self.terms if isinstance(t, MarginTerm) and counts(t)]
        return [term for term in found if term.candidates is not None]

    @property
    def questions(self) -> tuple[int, bool] | None:
        """How many rows of a question are compared, and whether others' make up for few."""
        for term in self._margins:
            assert term.candidates is not None
            return term.candidates, term.negatives
        return None

    @model_validator(mode="after")
    def _answers_can_be_measured(self) -> Self:
        if self.early_stopping is not None and not self.teaches_answers:
            raise ValueError(
                f"stage '{self.name}' has early_stopping and no term on the student's answers, so "
                "the metric says nothing about it: leave early_stopping out"
            )
        return self

    @property
    def teaches_answers(self) -> bool:
        """Whether the student learns what it answers here, and not only what it is inside."""
        return any(
            term.match in _ON_ANSWERS and counts(term) and STUDENT in self.who(term.learner)
            for term in self.terms
        )

    @property
    def reads_labels(self) -> bool:
        """Whether the rows need labels: for a term, or for a companion."""
        terms = any(isinstance(term, LabelsTerm) and counts(term) for term in self.terms)
        return terms or any(one.reads_labels for one in self.companions)

    @property
    def brought(self) -> Brought:
        """Everybody whom companions bring; a name that several use stands for all of theirs."""
        members: tuple[Name, ...] = ()
        groups: dict[Name, tuple[Name, ...]] = {}
        kin: dict[Name, Name] = {}
        for companion in self.companions:
            found = companion.brings(lambda name: groups.get(name, (name,)))
            members, kin = (*members, *found.members), {**kin, **found.kin}
            for name, who in found.groups.items():
                groups[name] = tuple(dict.fromkeys((*groups.get(name, ()), *who)))
        return Brought(members, groups, kin)

    @property
    def views(self) -> dict[Name, str]:
        """Texts that come with each row for companions to read, by name."""
        return {name: kind for one in self.companions for name, kind in one.views.items()}

    @property
    def members(self) -> tuple[Name, ...]:
        """Everybody whom companions bring."""
        return self.brought.members

    @property
    def groups(self) -> Mapping[Name, tuple[Name, ...]]:
        """Names that stand for several."""
        return self.brought.groups

    def who(self, name: Name) -> tuple[Name, ...]:
        """Those whom a name stands for."""
        return self.groups.get(name, (name,))

    @property
    def needs_teacher(self) -> bool:
        followed = [t.teacher for t in self.terms if isinstance(t, TaughtTerm) and counts(t)]
        read = [name for one in self.companions for name in one.reads]
        return any(is_teacher(one) for name in (*followed, *read) for one in self.who(name))


def _as_assistant(value: Any) -> Any:
    return {"student": value} if isinstance(value, str) else value


class Assistant(Config):
    """A model between teacher and student.

    student: its SPEC; `vocabulary=student` gives it the tokens of the student at the chain's end.
    stages: its own; those of the recipe by default.
    """

    student: Spec
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _stages_are_named_apart(self) -> Self:
        _check_names(self.stages or ())
        return self


class Recipe(Config):
    """A named way to train a student; `student` is the default of --student.

    task: what a student is for, by default what its teacher is. Embeddings may follow a teacher
    that scores two texts, a cross-encoder.
    assistants: models between teacher and student, or their SPECs, each made of the one before it
    and trained by the same stages or by its own. guides: who teaches each, the one before it or all
    before it; of all, the nearest is teacher-1.
    """

    name: Word
    summary: Annotated[str, NO_EFFECT]
    paper: Annotated[str | None, NO_EFFECT] = None
    task: Word | None = None
    student: Spec = "layers=1/2"
    assistants: tuple[Annotated[Assistant, BeforeValidator(_as_assistant)], ...] = ()
    guides: Literal["last", "all"] = "last"
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _stages_are_named_apart(self) -> Self:
        _check_names(self.stages)
        return self

    @property
    def needs_teacher(self) -> bool:
        return any(stage.needs_teacher for stage in self.stages)

    @property
    def reads_labels(self) -> bool:
        return any(stage.reads_labels for stage in self.all_stages)

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """The student's, after those that assistants have to themselves."""
        own = [stage for one in self.assistants for stage in one.stages or ()]
        return (*own, *self.stages)

    def with_stages(self, change: Callable[[Stage], Stage]) -> Recipe:
        """The same with each of `all_stages` changed."""
        assistants = tuple(
            one.model_copy(update={"stages": one.stages and tuple(map(change, one.stages))})
            for one in self.assistants
        )
        stages = tuple(map(change, self.stages))
        return self.model_copy(update={"stages": stages, "assistants": assistants})


def _check_names(stages: Sequence[Stage]) -> None:
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"stages need different names, found {', '.join(names)}")


# A shipped recipe by name, or a YAML file: what it says counts.
RecipeSource = Annotated[str, Counts(lambda source: load_recipe(source))]


class DistillConfig(Config):
    """What `distill` does. `epochs` to `learning_rate` replace those of every stage.

    teacher: checkpoint folder or hub id, or several; None when the recipe learns from labels
    alone. Where there are several a student is made of the first.
    student: SPEC, see `distill.recipe.student`; the recipe's own by default.
    assistants: SPECs of the models between, in their order; the recipe's own by default.
    task: what is learned without a teacher, text-classification by default; else the teacher's.
    recipe: the name of a shipped recipe, or a YAML file.
    max_length: tokens; by default 128, or less where the model allows less.
    unlabelled: texts for the stages that augment by `unlabelled` and name no source.
    augment_folder: where augmented texts are kept between runs; the user's cache by default.
    teacher_cache: a folder to keep what the teacher says in, so that it is asked only once.
    save_seconds: how often an interrupted run can be continued from.
    early_stopping: of the stages that teach answers, in place of theirs.
    resume: continue a run that was interrupted also with other learning rates, epochs or weights.
    baselines: train the same student without a teacher too, from its own weights and from random.
    tensorboard: a folder for TensorBoard's logs; the CSV is written in any case.
    """

    teacher: (
        CheckpointSource | Annotated[tuple[CheckpointSource, ...], Field(min_length=1)] | None
    ) = None
    student: Spec | None = None
    assistants: tuple[Spec, ...] | None = None
    task: Word | None = None
    train: DataSource
    eval: DataSource | None = None
    recipe: RecipeSource = DEFAULT_RECIPE
    output: OutputPath
    columns: Columns = Columns()
    augment_folder: CachePath | None = None
    unlabelled: DataSource | None = None
    teacher_cache: Annotated[Path | None, PRESENCE] = None
    max_length: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    max_steps: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None
    seed: int = Field(default=0, ge=0)
    bf16: bool = False
    threads: Annotated[PositiveInt | None, NO_EFFECT] = None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    save_seconds: Annotated[NonNegativeFloat, NO_EFFECT] = 60.0
    early_stopping: PositiveInt | None = None
    resume: Annotated[bool, NO_EFFECT] = False
    baselines: bool = False
    tensorboard: OutputPath | None = None

    @property
    def teachers(self) -> tuple[str, ...]:
        """All teachers, in their order."""
        if self.teacher is None or isinstance(self.teacher, tuple):
            return self.teacher or ()
        return (self.teacher,)

    def stage_overrides(self) -> dict[str, Any]:
        """The stage settings this run replaces."""
        names = ("epochs", "max_steps", "batch_size", "learning_rate")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(source: str) -> Recipe:
    """A shipped recipe by name, or a YAML file; raises ConfigError when it is neither."""
    return Recipe.build(load_yaml(recipe_file(source)), where=f"recipe {source}")


def recipe_file(source: str) -> Path:
    """The YAML file of a recipe; raises ConfigError for a name that does not ship."""
    path = Path(source)
    if path.suffix in {".yaml", ".yml"}:
        return path
    if source not in recipe_names():
        raise unknown_name("recipe", source, recipe_names())
    return RECIPES / f"{source}.yaml"
