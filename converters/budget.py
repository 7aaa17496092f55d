"""A metric budget: layers stay wider until an artifact loses no more than it may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from converters.base import Export, Request
from converters.weights import Owners
from edge.bundle import Artifact, Budget, Bundle, GoldenCase, KeptWider
from edge.console import hush, step
from edge.engines import runtime_engine
from edge.engines.runner import Runner
from edge.errors import VerificationError
from edge.precision import Precision
from edge.tasks.base import Examples
from edge.verify import check

# What a layer is kept at when its precision loses too much, one rung after the other.
_RUNGS = {
    Precision.INT8: (Precision.FP16,),
    Precision.INT8_STATIC: (Precision.FP16,),
    Precision.INT8_WEIGHTS: (Precision.FP16,),
    Precision.INT4: (Precision.INT8, Precision.FP16),
    Precision.PALETTE8: (Precision.FP16,),
    Precision.PALETTE6: (Precision.INT8, Precision.FP16),
    Precision.PALETTE4: (Precision.INT8, Precision.FP16),
    Precision.PALETTE2: (Precision.INT8, Precision.FP16),
}


@dataclass(frozen=True)
class _Attempt:
    """One artifact as written with some layers wider; objection: why it does not do."""

    wider: dict[str, Precision]
    artifact: Artifact
    budget: Budget
    objection: str | None


class MetricBudget:
    """Holds artifacts to what the checkpoint scores on labelled data.

    checkpoint: name and value of its metric on `examples`. rank: modules of the checkpoint for a
    precision, the most sensitive first. describe: the manifest entry of a written file.
    """

    def __init__(
        self,
        bundle: Bundle,
        cases: list[GoldenCase],
        examples: Examples,
        checkpoint: tuple[str, float],
        *,
        max_drop: float,
        owners: Owners,
        rank: Callable[[Precision], list[str]],
    ) -> None:
        self._bundle = bundle
        self._cases = cases
        self._examples = examples
        self._metric, self._checkpoint = checkpoint
        self._max_drop = max_drop
        self._owners = owners
        self._rank = rank

    def fit(
        self, export: Export, request: Request, path: Path, describe: Callable[[], Artifact]
    ) -> Artifact:
        """Write the artifact with as few layers wider as pass both the metric and verification.

        Raises VerificationError, with the best figure, when not even all of them do.
        """

        def attempt(count: int) -> _Attempt:
            return self._attempt(export, request, path, describe, dict(steps[:count]))

        steps: list[tuple[str, Precision]] = []
        best = plain = attempt(0)
        if plain.objection is None:
            return self._finished(best, plain)
        steps = list(self._steps(request.precision))
        low, high = 0, 0
        while best.objection is not None:
            if high >= len(steps):
                raise VerificationError(f"{plain.artifact.name} {best.objection}")
            low, high = high, min(max(2 * high, 1), len(steps))
            best = attempt(high)
        while high - low > 1:
            middle = (low + high) // 2
            tried = attempt(middle)
            low, high = (low, middle) if tried.objection is None else (middle, high)
            best = tried if tried.objection is None else best
        if len(best.wider) and best.artifact.sha256 != describe().sha256:
            # The last attempt was one too few: what is kept must be what is on disk.
            best = attempt(high)
        return self._finished(best, plain)

    def _steps(self, precision: Precision) -> Iterator[tuple[str, Precision]]:
        rungs = _RUNGS.get(precision, ())
        ranked = self._rank(precision) if rungs else []
        for rung in rungs:
            yield from ((name, rung) for name in ranked)

    def _attempt(
        self,
        export: Export,
        request: Request,
        path: Path,
        describe: Callable[[], Artifact],
        wider: dict[str, Precision],
    ) -> _Attempt:
        title = f"write {path.name}"
        with step(f"{title}, {len(wider)} layers wider" if wider else title), hush():
            kept = export.write(replace(request, wider=wider), path)
        artifact = describe().model_copy(update={"kept_wider": kept})
        found = check(self._bundle, artifact, self._cases)
        with step(f"score {artifact.name}"), hush():
            value = self._score(artifact)
        budget = Budget(
            metric=self._metric,
            checkpoint=self._checkpoint,
            artifact=value,
            max_drop=self._max_drop,
            samples=len(self._examples.encodings),
        )
        objection = None
        # Sums of floats: a drop of just the budget is within it.
        if self._checkpoint - value > self._max_drop + 1e-9:
            objection = (
                f"loses {self._checkpoint - value:.4f} {self._metric} with {len(wider)} layers "
                f"kept wider, more than --max-drop {self._max_drop:g}"
            )
        elif found.status != "passed":
            objection = f"{found.status} in {found.engine}: {found.reason}"
        return _Attempt(wider, artifact, budget, objection)

    def _score(self, artifact: Artifact) -> float:
        with Runner(self._bundle, artifact, runtime_engine(artifact.target_runtimes[0])) as runner:
            outputs = runner.infer(self._examples.encodings)
            return self._examples.score(outputs)[self._metric]

    def _finished(self, best: _Attempt, plain: _Attempt) -> Artifact:
        added = best.artifact.bytes - plain.artifact.bytes
        own = Precision(best.artifact.precision)
        bits = {
            name: self._owners.sizes[name] * (wide.weight_bits - own.weight_bits)
            for name, wide in best.wider.items()
        }
        total = sum(bits.values())
        # What all of them added was measured; each one's share is that of its bits.
        kept = tuple(
            KeptWider(
                layer=name,
                precision=best.wider[name].value,
                size_bytes=round(added * bits[name] / total),
            )
            for name in best.wider
        )
        return best.artifact.model_copy(
            update={"kept_wider": (*best.artifact.kept_wider, *kept), "budget": best.budget}
        )
