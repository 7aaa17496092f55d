"""`edge benchmark`: time artifacts beside a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmark import environment
from benchmark.config import BenchmarkConfig
from benchmark.devices import get_device
from benchmark.plan import Cell, Plan, make_plan
from benchmark.progress import rounds_progress
from benchmark.rows import RowMaker
from benchmark.sampler import Comparison, compare
from benchmark.schema import Conditions, Row
from benchmark.wording import baseline_title, engine_title, format_title, listed
from edge.bundle import Verification
from edge.config import Config
from edge.console import say, step

_DEVICE = "local"


class BenchmarkResult(Config):
    """What came out.

    rows: one for each artifact, then one for each baseline, timed or not.
    not_measured: in sentences, what a reader might expect and does not find.
    verifications: by `Row.model.id`, what was found when the artifact was verified.
    baseline, random_weights: what the ratios compare with, None when nothing.
    """

    rows: tuple[Row, ...]
    not_measured: tuple[str, ...]
    verifications: dict[str, Verification]
    baseline: str | None = None
    random_weights: bool = False


def benchmark(config: BenchmarkConfig) -> BenchmarkResult:
    """Time every chosen artifact and the baseline in turns, each in a process of its own.

    Raises UserErrors for a request that cannot be met, MeasurementError when a model fails or its
    process dies; whatever happens, Ctrl-C included, no process is left.
    """
    started_utc = environment.utc_now()
    plan = make_plan(config)
    device = get_device(_DEVICE)
    comparison = _measure(config, plan)
    with step("sizes and intervals"):
        rows = RowMaker(config, plan, device.describe(), comparison, started_utc).rows()
    return BenchmarkResult(
        rows=rows,
        not_measured=tuple(_not_measured(config, plan, comparison)),
        verifications={c.model.id: c.verification for c in plan.cells if c.verification},
        baseline=None if config.baseline is None else config.baseline.name,
        random_weights=config.baseline is not None and config.baseline.random_weights,
    )


def _measure(config: BenchmarkConfig, plan: Plan) -> Comparison:
    device = get_device(_DEVICE)
    jobs = [cell.job(config.threads) for cell in plan.timed]
    if not jobs:
        now = device.conditions()
        return Comparison((), now, now, None)
    protocol = config.demands
    say(f"timing {len(jobs)} models at {plan.length} tokens")
    with rounds_progress("timing", protocol.rounds) as progress:
        return compare(jobs, device, protocol, seed=config.seed, progress=progress)


def _not_measured(config: BenchmarkConfig, plan: Plan, comparison: Comparison) -> Iterable[str]:
    yield from _untimed(plan.cells)
    if not plan.timed:
        return
    yield from _missing_baselines(config, plan)
    yield "No phone and no other device was used: all latencies are of this machine's processor."
    yield "Energy use, and what heat does to speed over minutes, were not measured."
    if _unreadable(comparison.after):
        yield "Clock frequency and temperature cannot be read on this machine."


def _untimed(cells: Sequence[Cell]) -> Iterable[str]:
    """One sentence for all cells of one kind that share a reason."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if cell.reason is not None:
            name = (
                format_title(cell.model.format)
                if cell.role == "artifact"
                else f"{baseline_title(cell.model.id)} in {engine_title(cell.engine)}"
            )
            groups.setdefault((cell.role, name, cell.reason), []).append(cell.model.precision)
    for (role, name, reason), precisions in groups.items():
        if role == "artifact":
            yield f"{name} ({listed(list(dict.fromkeys(precisions)))}) was not timed: {reason}."
        else:
            yield f"{name} was not timed: {reason}."


def _missing_baselines(config: BenchmarkConfig, plan: Plan) -> Iterable[str]:
    baseline = config.baseline
    if baseline is None:
        yield "No baseline was timed, so there is no ratio."
        return
    title = baseline_title(baseline.name)
    if baseline.checkpoint is None:
        yield f"{title} was not timed in PyTorch: only a bundle of it was given."
    held = {cell.model.format for cell in plan.cells if cell.role == "baseline"}
    for name in dict.fromkeys(c.model.format for c in plan.timed if c.role == "artifact"):
        if name not in held:
            form = format_title(name)
            yield f"{title} was not timed as {form}: no fp32 artifact of it was given."


def _unreadable(conditions: Conditions) -> bool:
    return conditions.frequency_mhz is None and conditions.temperature_c is None
