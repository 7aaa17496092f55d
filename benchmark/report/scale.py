"""Axis scale: values to positions, and round values for ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_MARGIN = 0.1
_LEAST_SPREAD = 1e-12


@dataclass(frozen=True)
class Scale:
    """Scale of values from `low` to `high` to positions from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    @classmethod
    def fit(cls, values: Sequence[float], start: float, end: float, *, log: bool) -> Scale:
        """Return a scale for all values with a margin; positive values only if `log`."""
        low, high = min(values), max(values)
        # On a range under a factor of three a logarithmic axis has too few round values to read.
        log = log and high / low > 3
        if log:
            room = max(math.log(high / low) * _MARGIN, 0.05)
            return cls(low * math.exp(-room), high * math.exp(room), start, end, True)
        spread = (high - low) or abs(high) * 0.1
        # Below that a margin would vanish in rounding.
        spread = spread if spread > _LEAST_SPREAD else 1.0
        return cls(low - spread * _MARGIN, high + spread * _MARGIN, start, end, False)

    def place(self, value: float) -> float:
        """Return the position of a value."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Return at most about `most` round values on the axis."""
        if not self.log:
            return self._even_ticks(most)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        marks: list[float] = []
        for steps in ((1, 2, 5), (1, 3), (1,)):
            every = (step * 10.0**decade for decade in decades for step in steps)
            marks = [value for value in every if self.low <= value <= self.high]
            if len(marks) <= most:
                break
        return marks

    def _even_ticks(self, most: int) -> list[float]:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]
