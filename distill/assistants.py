"""Assistants: models between a large teacher and a small student, each taught by those before it.

Sources: Mirzadeh et al. 2020, "Improved Knowledge Distillation via Teacher Assistant" (each is
taught by the one before it); Son et al. 2021, "Densely Guided Knowledge Distillation using Multiple
Teacher Assistants" (by all before it).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.recipe.config import Assistant, Recipe, Stage
from distill.recipe.student import OF_STUDENT, parse_spec
from distill.training import processes
from distill.training.resume import RECORD_FILE, TrainingState, damage_of_output
from edge.console import say
from edge.errors import ConfigError
from edge.storage.system import remove

if TYPE_CHECKING:
    from distill.prepare import Run
    from distill.result import DistillResult

# What is told of each assistant.
_TOLD = ("student", "parameters", "metric", "value")


@dataclass(frozen=True)
class Chain:
    """A run that is done step by step. folder: where finished assistants are kept meanwhile."""

    run: Run
    folder: Path
    train: Callable[[Run], DistillResult]

    def climb(self) -> tuple[Run, list[dict[str, Any]]]:
        """Train the assistants, or take over finished ones; gives the student's run, and them.

        Every shape is checked before the first one trains. Raises ConfigError for one that cannot
        be made of the one before it.
        """
        assistants = self.run.recipe.assistants
        self._check()
        made: list[dict[str, Any]] = []
        for number, one in enumerate(assistants, start=1):
            say(f"assistant {number} of {len(assistants)}: {one.student}")
            made.append(self._assistant(number, one.student))
        last = self._link(len(assistants), self._student, self.run.inputs.config.output)
        # What the whole chain was made from, not where its last step found its teachers.
        return replace(last, fingerprint=self.run.fingerprint), made

    @property
    def _student(self) -> str:
        return self.run.inputs.config.student or self.run.recipe.student

    def _stages(self, made: int) -> tuple[Stage, ...]:
        """What trains the model that comes after `made` assistants."""
        recipe = self.run.recipe
        own = recipe.assistants[made].stages if made < len(recipe.assistants) else None
        return own or recipe.stages

    def _assistant(self, number: int, spec: str) -> dict[str, Any]:
        folder = self.folder / f"assistant-{number}"
        processes.from_main(lambda: _remove_if_damaged(folder))
        link = self._link(number - 1, spec, folder)
        record = _finished(folder, link) or self.train(link).to_dict()
        return {name: record[name] for name in _TOLD}

    def _link(self, made: int, spec: str, output: Path) -> Run:
        """The run of one model that is taught by the last of `made` assistants, or by all."""
        from distill.prepare import prepare

        config, recipe = self.run.inputs.config, self.run.recipe
        update: dict[str, Any] = {"student": spec, "output": output, "assistants": None}
        if output != config.output:
            started = TrainingState(output).folder.is_dir() or (output / RECORD_FILE).is_file()
            update |= {"baselines": False, "resume": config.resume and started}
        if made:
            # The nearest comes first: a student is made of it.
            folders = [str(self.folder / f"assistant-{n}") for n in range(made, 0, -1)]
            all_of_them = (*folders, *config.teachers)
            update["teacher"] = all_of_them if recipe.guides == "all" else folders[0]
        for name in ("teacher_cache", "tensorboard"):
            if made and getattr(config, name) is not None:
                update[name] = getattr(config, name) / f"assistant-{made}"
        return processes.main_first(
            lambda: prepare(
                config.model_copy(update=update),
                recipe.model_copy(update={"assistants": (), "stages": self._stages(made)}),
                like=self.run,
            )
        )

    def _check(self) -> None:
        """Raise ConfigError when a model of the chain cannot be built, or does not fit a stage."""
        inputs, recipe = self.run.inputs, self.run.recipe
        teachers = inputs.teachers
        for made, spec in enumerate((*(one.student for one in recipe.assistants), self._student)):
            inputs = inputs.taught_by(teachers, spec)
            for stage in self._stages(made):
                inputs.learner(stage)
            nearest = inputs.student.as_teacher()
            teachers = (nearest, *teachers) if recipe.guides == "all" else (nearest,)


def with_assistants(recipe: Recipe, specs: Sequence[str]) -> Recipe:
    """The recipe with other assistants; each takes the stages of the one in its place.

    Raises ConfigError where some have stages of their own and others are not as many.
    """
    before = recipe.assistants
    if len(specs) != len(before):
        if any(one.stages for one in before):
            raise ConfigError(
                f"recipe '{recipe.name}' trains its assistants in stages of their own: name "
                f"{len(before)} with --assistants, or none"
            )
        before = tuple(Assistant(student=spec) for spec in specs)
    changed = [
        one.model_copy(update={"student": spec}) for one, spec in zip(before, specs, strict=True)
    ]
    return recipe.model_copy(update={"assistants": tuple(changed)})


def with_words(recipe: Recipe, student: str) -> Recipe:
    """The recipe whose assistants of `vocabulary=student` have as many tokens as that SPEC says.

    Raises ConfigError where it says nothing.
    """
    borrow = [one.student for one in recipe.assistants if OF_STUDENT in one.student]
    if not borrow:
        return recipe
    size = parse_spec(student).vocabulary
    if size is None:
        raise ConfigError(
            f"assistant '{borrow[0]}' of recipe '{recipe.name}' has the student's tokens, and "
            f"student '{student}' says nothing of its own: add vocabulary=5000, say"
        )
    own = OF_STUDENT.partition("=")[0]
    specs = [one.student.replace(OF_STUDENT, f"{own}={size}") for one in recipe.assistants]
    return with_assistants(recipe, specs)


def _remove_if_damaged(folder: Path) -> None:
    """Remove an assistant that is not what the run wrote, so that it is trained again."""
    if not folder.exists():
        return
    problem = damage_of_output(folder)
    if problem is not None:
        say(f"{folder} is damaged ({problem}): training it again")
        remove(folder)


def _finished(folder: Path, link: Run) -> dict[str, Any] | None:
    """What is told of an assistant that a run like this one made; None when there is none."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = record.get("made_from") == json.loads(json.dumps(link.fingerprint))
    # A run that is resumed with other learning rates keeps what it has finished.
    return record if same or link.inputs.config.resume else None
