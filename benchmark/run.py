"""`edge benchmark`: time artifacts beside a baseline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.config import Baseline, BenchmarkConfig, Setting
from benchmark.devices import Device, Timer, get_device
from benchmark.keys import saved_references
from benchmark.measure import environment
from benchmark.measure.findings import Findings, collect_findings
from benchmark.measure.journal import Journal, remove_journal
from benchmark.measure.plan import Cell, Plan, Planner
from benchmark.measure.progress import rounds_progress
from benchmark.measure.rows import RowMaker, Session, deflated_sizes, new_run_id
from benchmark.measure.sampler import Comparison, Observer, compare
from benchmark.row_files import read_rows
from benchmark.schema import Conditions, DeviceInfo, Row
from benchmark.titles import baseline_title, engine_title, format_title, join_names
from edge.bundle import Verification
from edge.config import Config
from edge.console import counted, say, step, three_figures
from edge.provenance import describe, versions

# Formats and lengths in tokens -> the baseline to compare with, or None.
BaselineMaker = Callable[[Sequence[str], Sequence[int]], Baseline | None]


class BenchmarkResult(Config):
    """The result of a benchmark.

    rows: for each point of the sweep one for each artifact, then one for each baseline, timed or
    not. not_measured: one sentence for each measurement that a reader might expect and that is
    missing. verifications: the conversion's verification of each artifact, by `Row.model.id`.
    baseline: name of the baseline of the ratios, or None. random_weights: of that baseline.
    failure: error that ended the measurement early; the rows hold the measurements before it.
    """

    rows: tuple[Row, ...]
    not_measured: tuple[str, ...]
    verifications: dict[str, Verification]
    baseline: str | None = None
    random_weights: bool = False
    failure: str | None = None


def benchmark(
    config: BenchmarkConfig,
    *,
    make_baseline: BaselineMaker | None = None,
    journal: Path | None = None,
    keep_journal: bool = False,
) -> BenchmarkResult:
    """Time every chosen artifact and the baseline in turns, each in a process of its own.

    make_baseline: called for `config.baseline` once formats and lengths are known. journal: a file
    of the recorded turns, with which the same call resumes after an interruption.
    keep_journal: leave the journal in place; the caller removes it once the result is stored.
    Raises UserError for a request that cannot be met, MeasurementError if a model fails or its
    process dies before anything was recorded. All processes are ended on every exit, Ctrl-C
    included.
    """
    with get_device(config.device, config.options) as device:
        planner = Planner(config, device)
        if make_baseline is not None and planner.formats:
            baseline = make_baseline(planner.formats, planner.baseline_lengths)
            config = config.model_copy(update={"baseline": baseline})
        run = _Benchmark(config, device, planner, journal)
        result = run.result()
        if result.failure is None and not keep_journal:
            remove_journal(journal)
        return result


class _Benchmark:
    """The comparisons of a sweep, one after another."""

    def __init__(
        self, config: BenchmarkConfig, device: Device, planner: Planner, journal: Path | None
    ) -> None:
        self._config, self._device = config, device
        self._plans = [planner.plan(setting, config.baseline) for setting in planner.settings]
        self._tables = planner.tables
        baseline = config.baseline
        self._saved = None
        if baseline is not None and baseline.rows is not None:
            self._saved = saved_references(read_rows(baseline.rows), str(baseline.rows))
        if any(plan.timed for plan in self._plans):
            device.ready()
        self._journal = Journal(journal, _fingerprint(config, self._plans, device.describe()))
        self._started_utc = environment.utc_now()

    def result(self) -> BenchmarkResult:
        """Run all comparisons; after a failure return the measurements before it."""
        comparisons: list[Comparison] = []
        all_findings: list[dict[Cell, Findings]] = []
        plans: list[Plan] = []
        for plan in self._plans:
            findings: dict[Cell, Findings] = {}
            comparisons.append(self._measure(plan, findings))
            plans.append(plan.without(comparisons[-1].refusals))
            all_findings.append(findings)
            if comparisons[-1].failure is not None:
                break
        failure = comparisons[-1].failure
        done = list(zip(plans, comparisons, all_findings, strict=True))
        config, baseline = self._config, self._config.baseline
        with step("sizes and intervals"):
            rows = self._rows(done)
        return BenchmarkResult(
            rows=rows,
            not_measured=(
                *_not_measured(config, [(p, c) for p, c, _ in done]),
                *_saved_words(rows, self._saved),
            ),
            verifications=_verifications(self._plans),
            baseline=None if baseline is None else baseline.name,
            random_weights=baseline is not None and baseline.random_weights,
            failure=failure,
        )

    def _measure(self, plan: Plan, findings: dict[Cell, Findings]) -> Comparison:
        setting, protocol = plan.setting, self._config.effective_protocol
        jobs = [cell.job(setting.threads) for cell in plan.timed]
        if not jobs:
            now = self._device.conditions()
            return Comparison((), now, now, None)

        def finish(number: int, timer: Timer) -> None:
            cell = plan.timed[number]
            table = None if cell.bundle is None else self._tables.get(cell.bundle.path)
            findings[cell] = collect_findings(
                cell, timer, table=table, profile=self._config.profile
            )

        say(f"timing {counted(len(jobs), 'model')} at {_setting_words(setting)}")
        with rounds_progress("timing", protocol.rounds) as progress:
            observer = Observer(progress, finish, self._journal, _setting_words(setting))
            seed = self._config.seed
            return compare(jobs, self._device, protocol, seed=seed, observer=observer)

    def _rows(
        self, done: Sequence[tuple[Plan, Comparison, Mapping[Cell, Findings]]]
    ) -> tuple[Row, ...]:
        cells = [cell for plan, _, _ in done for cell in plan.cells]
        device = self._device.describe()
        threads = {plan.setting.threads for plan in self._plans}
        session = Session(
            config=self._config,
            device=device,
            affinity={count: self._device.affinity(count) for count in threads},
            started_utc=self._started_utc,
            run_id=new_run_id(self._started_utc),
            zipped=deflated_sizes(list({c.path: None for c in cells if c.role == "artifact"})),
            interruptions=self._journal.interruptions + self._device.interruptions,
        )
        makers = [RowMaker(session, *measured, saved=self._saved) for measured in done]
        return tuple(row for maker in makers for row in maker.rows())


def _setting_words(setting: Setting) -> str:
    threads = f"{setting.threads} thread{'s' * (setting.threads > 1)}"
    batch = f", {setting.batch} texts at a time" if setting.batch > 1 else ""
    return f"{setting.seq_length} tokens on {threads}{batch}"


def _fingerprint(config: BenchmarkConfig, plans: Sequence[Plan], device: DeviceInfo) -> str:
    """Return a fingerprint of everything that determines the measurements."""
    # What is timed counts by the hashes of its cells.
    models: dict[str, Any] = {"bundles": (), "checkpoints": (), "baseline": None}
    parts = [describe(config.model_copy(update=models)), versions("benchmark")]
    # An address may lead to another machine today; details may change from minute to minute.
    parts.append(device.model_dump(mode="json", exclude={"address", "details"}))
    for plan in plans:
        cells = [
            [c.role, c.label, c.model.sha256, c.engine, c.version, c.inputs.info.sha256]
            for c in plan.timed
        ]
        parts.append({**asdict(plan.setting), "cells": cells})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _verifications(plans: Sequence[Plan]) -> dict[str, Verification]:
    cells = (cell for plan in plans for cell in plan.cells if cell.role == "artifact")
    verifications = (
        (c.model.id, None if c.artifact is None else c.artifact.verification) for c in cells
    )
    return {name: verification for name, verification in verifications if verification is not None}


def _not_measured(
    config: BenchmarkConfig, done: Sequence[tuple[Plan, Comparison]]
) -> Iterable[str]:
    yield from _untimed([cell for plan, _ in done for cell in plan.cells])
    plan, comparison = done[0]
    if not plan.timed:
        return
    yield from _missing_baselines(config, plan)
    if config.device == "local":
        yield "No phone and no other device was used: all latencies are of this machine."
    if not config.effective_protocol.sustained_s:
        yield "Energy use, and what heat does to speed over minutes, were not measured."
    if comparison.after is not None and _unreadable(comparison.after):
        yield "Clock frequency and temperature cannot be read on this device."


def _untimed(cells: Sequence[Cell]) -> Iterable[str]:
    """Yield one sentence for all cells of one kind that share a reason."""
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
            yield f"{name} ({join_names(list(dict.fromkeys(precisions)))}) was not timed: {reason}."
        else:
            yield f"{name} was not timed: {reason}."


def _missing_baselines(config: BenchmarkConfig, plan: Plan) -> Iterable[str]:
    baseline = config.baseline
    if baseline is None:
        yield "No baseline was timed, so there is no ratio."
        return
    title = baseline_title(baseline.name)
    if baseline.rows is not None:
        yield (
            f"{title} was not timed beside the artifacts: its times are of another run, and what "
            "the machine changed meanwhile is in every ratio."
        )
        return
    if baseline.checkpoint is None:
        yield f"{title} was not timed in PyTorch: only a bundle of it was given."
    baseline_formats = {cell.model.format for cell in plan.cells if cell.role == "baseline"}
    for name in dict.fromkeys(c.model.format for c in plan.timed if c.role == "artifact"):
        if name not in baseline_formats:
            form = format_title(name)
            yield f"{title} was not timed as {form}: no fp32 artifact of it was given."


def _saved_words(rows: Sequence[Row], saved: Sequence[Row] | None) -> Iterable[str]:
    """Yield the medians behind ratios to a saved baseline, or the reason for having no ratio."""
    if saved is None:
        return
    ratios = [r for row in rows for r in (row.ratio_to_baseline, row.ratio_same_engine) if r]
    if not ratios:
        yield (
            "The saved baseline has no row in these engines at this setting (threads, length, "
            "batch, padding) on this device, so there is no ratio."
        )
    used = {(ratio.baseline, ratio.engine) for ratio in ratios}
    for row in saved:
        if (row.model.id, row.runtime.name) in used and row.latency_ms and row.latency_ms.p50:
            where = f"{baseline_title(row.model.id)} in {engine_title(row.runtime.name)}"
            length = f"{row.inputs.seq_len} tokens" if row.inputs.seq_len else "an unknown length"
            yield (
                f"Saved on {row.started_utc}: {where} took {three_figures(row.latency_ms.p50)} ms "
                f"(median, {length}, threads: {row.runtime.threads}, batch: {row.inputs.batch})."
            )


def _unreadable(conditions: Conditions) -> bool:
    return conditions.frequency_mhz is None and conditions.temperature_c is None
