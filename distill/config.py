"""A recipe as data: stages made of terms, and the run that uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from typing_extensions import Self

from distill.augment import Augmentation
from distill.companions import CompanionConfig
from distill.terms import STUDENT, TEACHER, MarginTerm, Name, TaughtTerm, Term, counts
from edge.config import Config, load_yaml
from edge.data import Columns
from edge.errors import unknown_name

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "kd-hidden"


class Masking(Config):
    """Which tokens of a plain text are hidden for a model to guess.

    share: of a text's tokens. rare: a token that occurs `count` times is chosen in proportion to
    max(count, 1) to the power of -rare; all alike at 0.
    Source of `rare`: Lample and Conneau 2019, "Cross-lingual Language Model Pretraining", 3.1;
    DistilBERT trains with 0.7.
    """

    share: PositiveFloat = Field(default=0.15, lt=1)
    rare: NonNegativeFloat = 0.0


class Stage(Config):
    """One training run: its terms, its texts and its optimiser (AdamW).

    augment: texts besides the labelled ones, which terms that follow a teacher learn from.
    masking: for a task that guesses hidden tokens, which ones.
    companions: who takes part beside the student and the teacher.
    """

    name: str = Field(default="train", pattern=r"^[a-z0-9][a-z0-9-]*$")
    terms: tuple[Term, ...] = Field(min_length=1)
    companions: tuple[CompanionConfig, ...] = ()
    augment: tuple[Augmentation, ...] = ()
    masking: Masking | None = None
    epochs: PositiveFloat = 3.0
    max_steps: PositiveInt | None = None
    learning_rate: PositiveFloat = 5e-5
    batch_size: PositiveInt = 32
    gradient_accumulation: PositiveInt = 1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: PositiveFloat = 1e-8

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if not any(counts(term) for term in self.terms):
            raise ValueError(f"stage '{self.name}' has no term with a weight above 0")
        return self

    @model_validator(mode="after")
    def _everyone_is_known(self) -> Self:
        known = {STUDENT, TEACHER, *self.members, *self.groups}
        named = [term.learner for term in self.terms]
        named += [term.teacher for term in self.terms if isinstance(term, TaughtTerm)]
        for name in (*named, *(name for one in self.companions for name in one.reads)):
            if name not in known:
                raise ValueError(
                    f"stage '{self.name}' speaks of '{name}', and only "
                    f"{', '.join(sorted(known))} take part: add it to companions"
                )
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
    def _candidates_fill_batches(self) -> Self:
        for term in self.terms:
            if isinstance(term, MarginTerm) and self.batch_size % (term.candidates or 1):
                raise ValueError(
                    f"batch_size {self.batch_size} cuts questions of {term.candidates} candidates: "
                    f"use a multiple of {term.candidates}"
                )
        return self

    @property
    def members(self) -> tuple[Name, ...]:
        """Everybody whom companions bring."""
        return tuple(name for one in self.companions for name in one.members)

    @property
    def groups(self) -> dict[Name, tuple[Name, ...]]:
        """Names that stand for several."""
        return {name: who for one in self.companions for name, who in one.groups.items()}

    def who(self, name: Name) -> tuple[Name, ...]:
        """Those whom a name stands for."""
        return self.groups.get(name, (name,))

    @property
    def needs_teacher(self) -> bool:
        followed = [t.teacher for t in self.terms if isinstance(t, TaughtTerm) and counts(t)]
        read = [name for one in self.companions for name in one.reads]
        return any(TEACHER in self.who(name) for name in (*followed, *read))


class Recipe(Config):
    """A named way to train a student; `student` is the default of --student."""

    name: str
    summary: str
    paper: str | None = None
    student: str = "layers=1/2"
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _stages_are_named_apart(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages need different names, found {', '.join(names)}")
        return self

    @property
    def needs_teacher(self) -> bool:
        return any(stage.needs_teacher for stage in self.stages)


class DistillConfig(Config):
    """What `distil` does. `epochs` to `learning_rate` replace those of every stage.

    teacher: checkpoint folder or hub id; None when the recipe learns from labels alone.
    student: SPEC, see `distill.spec`; the recipe's own by default.
    recipe: the name of a shipped recipe, or a YAML file.
    max_length: tokens; by default 128, or less where the model allows less.
    augment_folder: where augmented texts are kept between runs; the user's cache by default.
    teacher_cache: a folder to keep what the teacher says in, so that it is asked only once.
    save_seconds: how often an interrupted run can be continued from.
    """

    teacher: str | None = None
    student: str | None = None
    train: str
    eval: str | None = None
    recipe: str = DEFAULT_RECIPE
    output: Path
    columns: Columns = Columns()
    augment_folder: Path | None = None
    teacher_cache: Path | None = None
    max_length: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    max_steps: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None
    seed: int = Field(default=0, ge=0)
    bf16: bool = False
    threads: PositiveInt | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    save_seconds: NonNegativeFloat = 60.0

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
