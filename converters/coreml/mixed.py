"""`auto`: 16-bit floats, but for the operators that would be wrong in them.

What leaves the 16-bit range is seen by running the program in 32 bits on real inputs; what merely
loses too much is found by trying which parts of the program must be in 32 bits for the rest not to
matter. The package is then run as it was saved.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.base import Inputs, Plan
from converters.coreml.blobs import wide_weights
from converters.coreml.program import place
from edge.bundle import KeptWider
from edge.engines.mil.half_precision import HalfPrecisionProgram
from edge.engines.mil.program import MilProgram
from edge.errors import ConversionError
from edge.precision import Precision

_GATE = Precision.AUTO.gate.max_relative_error
# How much of that the inputs tried may use up: others may lose more.
_MARGIN = 0.75
# Other texts may have larger values than those that were tried.
_LARGEST = float(np.finfo(np.float16).max) / 2
# What the error may be on the inputs tried, one after the other until the package passes.
_LIMITS = (_GATE / 2, _GATE / 4, _GATE / 8)
_CALIBRATION_SAMPLES = 6
_PARTS = 16
# Bounds the time for large models; what is left then stays wide.
_TRIALS = 150


def save_mixed(
    full: Path,
    half: Path,
    path: Path,
    plan: Plan,
    samples: Sequence[Inputs],
    save: Callable[..., None],
) -> tuple[KeptWider, ...]:
    """Save `path`, the package `half` or one with some operators of `full`; returns those.

    samples: model inputs. save: `save(path, wide=...)`, operators by name. Raises ConversionError
    when no choice of operators passes.
    """
    program = MilProgram.load(full)
    judge = _Judge(plan, samples, program)
    search = _Search(HalfPrecisionProgram(program), judge)
    if not search.beyond and judge.error(MilProgram.load(half).run) < _MARGIN * _GATE:
        place(half, path)
        return wide_weights(path)
    error = np.inf
    for limit in _LIMITS:
        wide = search.widen(limit)
        shutil.rmtree(path, ignore_errors=True)
        save(path, wide=wide)
        error = judge.error(MilProgram.load(path).run)
        if error < _MARGIN * _GATE:
            return _kept(search.trial, wide, path)
    shutil.rmtree(path, ignore_errors=True)
    raise ConversionError(
        f"no choice of 16-bit operators comes near the checkpoint (relative error {error:.2g}, "
        f"allowed {_GATE:.2g}): use --precision fp32"
    )


def samples_for(plan: Plan, module: Any) -> list[Inputs]:
    """Texts of the plan, and random ids of the module's vocabulary with and without padding."""
    random = np.random.default_rng(0)
    config = _config(module)
    padding = int(getattr(config, "pad_token_id", None) or 0)
    kinds = int(getattr(config, "type_vocab_size", None) or 1)
    samples = list(plan.calibration[:_CALIBRATION_SAMPLES])
    for length in sorted({plan.lengths[0], plan.max_length}):
        for valid in sorted({length, max(length // 2, 1)}):
            kept = np.arange(length) < valid
            ids = random.integers(0, config.vocab_size, length)
            values = {
                "input_ids": np.where(kept, ids, padding),
                "attention_mask": kept,
                "token_type_ids": kept & (np.arange(length) >= valid // 2) & (kinds > 1),
            }
            samples.append({name: values[name].astype(np.int32)[None] for name in plan.inputs})
    return samples


def _config(module: Any) -> Any:
    """The configuration of the checkpoint's model, which other modules may be wrapped around."""
    for part in module.modules():
        if hasattr(getattr(part, "config", None), "vocab_size"):
            return part.config
    raise ConversionError("the model's configuration has no vocab_size: use --precision fp16")


class _Judge:
    """How far outputs are from those in 32 bits, where there is text."""

    def __init__(self, plan: Plan, samples: Sequence[Inputs], program: MilProgram) -> None:
        self.samples = samples
        self._shapes = plan.task.outputs
        self._expected = [self._kept(sample, program.run(sample)) for sample in samples]

    def error(self, run: Callable[[Inputs], dict[str, Any]]) -> float:
        """The largest difference over all outputs, relative to the largest value.

        Infinite when an output is not finite.
        """
        difference = scale = 0.0
        for sample, expected in zip(self.samples, self._expected, strict=True):
            for name, value in self._kept(sample, run(sample)).items():
                if not np.isfinite(value).all():
                    return float("inf")
                reference = expected[name]
                difference = max(difference, float(np.abs(value - reference).max(initial=0.0)))
                scale = max(scale, float(np.abs(reference).max(initial=0.0)))
        return difference / max(scale, 1e-12)

    def _kept(self, sample: Inputs, outputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs without the positions of padding, where nobody looks."""
        text = np.flatnonzero(sample["attention_mask"][0])
        return {
            name: np.take(value, text, self._shapes[name].index("sequence"))
            if "sequence" in self._shapes[name]
            else value
            for name, value in outputs.items()
        }


class _Search:
    """Which operators must stay in 32 bits for the outputs to be right.

    beyond: those that read or give values beyond what 16 bits hold.
    """

    def __init__(self, trial: HalfPrecisionProgram, judge: _Judge) -> None:
        self.trial = trial
        self._judge = judge
        self._left = _TRIALS
        self.beyond = self._out_of_range()

    def widen(self, limit: float) -> set[str]:
        """Operators to keep, as few as the search finds, for an error below `limit`."""
        wide = set(self.beyond)
        if self._cost(wide) < limit:
            return wide
        needed: list[list[str]] = []
        rest = [name for name in self.trial.names if name not in wide]
        parts = [list(part) for part in np.array_split(np.array(rest, object), _PARTS)]
        # First the part that helps most when it alone is in 32 bits.
        for part in sorted(parts, key=lambda names: self._cost(wide | set(names))):
            needed.append(part)
            wide |= set(part)
            if self._cost(wide) < limit:
                break
        for part in needed:
            wide = self._narrow(wide, part, limit)
        return wide

    def _narrow(self, wide: set[str], names: list[str], limit: float) -> set[str]:
        """`wide` without those of `names` that the error can do without."""
        if not names or self._left <= 0:
            return wide
        without = wide - set(names)
        if self._cost(without) < limit:
            return without
        if len(names) == 1:
            return wide
        middle = len(names) // 2
        for half in (names[:middle], names[middle:]):
            wide = self._narrow(wide, half, limit)
        return wide

    def _out_of_range(self) -> set[str]:
        largest = dict.fromkeys(self.trial.names, 0.0)
        for sample in self._judge.samples:
            for name, value in self.trial.extremes(sample).items():
                largest[name] = max(largest[name], value)
        return {name for name, value in largest.items() if value > _LARGEST}

    def _cost(self, wide: Collection[str]) -> float:
        self._left -= 1
        return self._judge.error(lambda sample: self.trial.outputs(sample, wide))


def _kept(trial: HalfPrecisionProgram, wide: Collection[str], path: Path) -> tuple[KeptWider, ...]:
    """The operators in 32 bits: those that were chosen, and those whose weights do not fit."""
    costs = trial.cost_bytes(wide)
    chosen = tuple(
        KeptWider(layer=name, precision=Precision.FP32.value, size_bytes=costs[name])
        for name in trial.names
        if name in wide
    )
    return (*chosen, *(entry for entry in wide_weights(path) if entry.layer not in wide))
