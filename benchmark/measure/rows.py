"""Rows from samples: latencies, ratios, and their validity."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark import statistics
from benchmark.config import BenchmarkConfig, Protocol
from benchmark.measure import environment
from benchmark.measure.findings import Findings
from benchmark.measure.plan import Cell, Plan
from benchmark.measure.sampler import Comparison, Samples
from benchmark.ratios import parts_of, with_ratios
from benchmark.schema import (
    ConditionsPair,
    DeviceInfo,
    Latency,
    ProtocolInfo,
    Row,
    Runtime,
    Tool,
    Validity,
)
from edge import __version__
from edge.console import counted

# Above these a latency is still shown, with a reservation.
_DRIFT_LIMIT = 0.10
_OTHER_CORES_LIMIT = 0.25
# A turn lasts as long as it should with the pauses between its runs, which are not recorded.
_DURATION_TOLERANCE = 0.95
# Words of systems for "does not throttle"; None where there is none.
_COOL = {None, "none", "nominal"}
_CHUNK_BYTES = 1 << 20
_NS_PER_MS = 1e6
_ORDER = "rounds, order drawn anew in each"


@dataclass(frozen=True)
class Session:
    """Properties that all rows of one run share.

    affinity: processors that models may use, by number of threads. zipped: size after deflate of
    each artifact. interruptions: how often the run was resumed.
    """

    config: BenchmarkConfig
    device: DeviceInfo
    affinity: Mapping[int, tuple[int, ...] | None]
    started_utc: str
    run_id: str
    zipped: Mapping[Path, int]
    interruptions: int = 0


def new_run_id(started_utc: str) -> str:
    """Return a unique name for a run."""
    return f"{started_utc.translate({ord(c): None for c in '-:'})}-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class RowMaker:
    """Builds the rows of one comparison. saved: rows of a baseline that another run timed."""

    session: Session
    plan: Plan
    comparison: Comparison
    findings: Mapping[Cell, Findings]
    saved: tuple[Row, ...] | None = None

    @property
    def config(self) -> BenchmarkConfig:
        return self.session.config

    def rows(self) -> tuple[Row, ...]:
        """Return one row for each cell of the plan, timed or not."""
        measured = dict(zip(self.plan.timed, self.comparison.samples, strict=True))
        rows = [self._row(cell, measured) for cell in self.plan.cells]
        return with_ratios(rows, saved=self.saved)

    def _row(self, cell: Cell, measured: Mapping[Cell, Samples]) -> Row:
        samples, session = measured.get(cell), self.session
        findings = self.findings.get(cell, Findings())
        protocol = self._protocol(samples)
        latency = None if samples is None else self._latency(samples, parts_of(protocol))
        return Row(
            run_id=session.run_id,
            started_utc=session.started_utc,
            tool=Tool(
                name="edge-encoders",
                version=__version__,
                git=environment.commit(Path(__file__).resolve().parents[2]),
            ),
            role=cell.role,
            model=cell.model.model_copy(update={"bytes_zip": session.zipped.get(cell.path)}),
            runtime=Runtime(
                name=cell.engine,
                version=cell.version,
                provider=(samples and samples.loaded.provider) or "CPU",
                threads=(samples and samples.loaded.threads) or self.plan.setting.threads,
                affinity=session.affinity.get(self.plan.setting.threads),
                nodes=None if samples is None else samples.loaded.nodes,
                bytes=None if samples is None else samples.loaded.library_bytes,
            ),
            device=session.device,
            inputs=cell.inputs.info,
            protocol=protocol,
            conditions=ConditionsPair(
                before=self.comparison.before,
                after=self.comparison.after,
                other_cores=self.comparison.other_cores,
            ),
            latency_ms=latency,
            stages=findings.stages,
            sustained=() if samples is None else samples.stretches,
            operators=findings.operators,
            instructions=findings.instructions,
            memory=None if samples is None else samples.memory,
            check=findings.check,
            accuracy=findings.accuracy,
            validity=self._validity(cell, samples, latency, findings),
        )

    def _latency(self, samples: Samples, parts: statistics.Parts) -> Latency | None:
        if not samples.blocks:
            return None
        latency = latency_of(samples, seed=self.config.seed, parts=parts)
        if self.config.effective_protocol.passes is None or not samples.single:
            return latency
        return latency.model_copy(update={"total_s": sum(latency.raw_ns) / 1e9})

    def _protocol(self, samples: Samples | None) -> ProtocolInfo:
        protocol = self.config.effective_protocol
        return ProtocolInfo(
            preset="custom" if self.config.protocol else self.config.preset,
            warmup=None if samples is None else samples.warmed.runs,
            min_runs=protocol.min_runs,
            min_s=protocol.min_s,
            max_s=protocol.max_s,
            passes=protocol.passes,
            rounds=protocol.rounds,
            processes=self.comparison.processes,
            cooldown_s=protocol.cooldown_s,
            sustained_s=protocol.sustained_s,
            order=_ORDER,
            seed=self.config.seed,
            interruptions=self.session.interruptions,
        )

    def _validity(
        self, cell: Cell, samples: Samples | None, latency: Latency | None, findings: Findings
    ) -> Validity:
        if samples is None or latency is None:
            return Validity(status="not_measured", reasons=(cell.reason or "not timed",))
        device = self.session.device
        faults = _faults(cell, device, findings)
        if faults:
            return Validity(status="invalid", reasons=faults)
        reservations = [
            *_shortfalls(latency, samples, cell, self.config.effective_protocol),
            *_disturbances(latency, self.comparison, device.cores),
            *_missing_checks(cell, findings),
            *samples.loaded.notes,
            *samples.warmed.notes,
        ]
        if self.comparison.failure is not None:
            reservations.insert(0, f"the measurement ended early: {self.comparison.failure}")
        return Validity(status="limited" if reservations else "valid", reasons=tuple(reservations))


def latency_of(samples: Samples, *, seed: int, parts: statistics.Parts = ()) -> Latency:
    """Return the latency of one cell, in milliseconds."""
    raw_ns = statistics.pooled(samples.blocks)
    values = raw_ns / _NS_PER_MS
    interval = statistics.median_interval(samples.blocks, seed=seed, parts=parts)
    latency = Latency(
        load=samples.loaded.load_ms,
        first=samples.loaded.first_ms,
        n=samples.runs,
        p50=float(np.median(values)),
        ci95=None if interval is None else (interval[0] / _NS_PER_MS, interval[1] / _NS_PER_MS),
        drift=statistics.drift(values),
        recorded="runs" if samples.single else "turns",
        raw_ns=tuple(raw_ns.tolist()),
        blocks=tuple((number, len(samples.blocks[number])) for number in sorted(samples.blocks)),
    )
    return latency.model_copy(update=_distribution(values)) if samples.single else latency


def _distribution(values: statistics.Array) -> dict[str, float | None]:
    """Return the statistics that need single runs."""
    p90, p95, p99 = (float(value) for value in np.percentile(values, [90, 95, 99]))
    return {
        "mean": float(values.mean()),
        "p90": p90,
        "p95": p95,
        "p99": p99 if len(values) >= statistics.P99_MIN_RUNS else None,
        "min": float(values.min()),
        "max": float(values.max()),
        "mad": statistics.median_deviation(values),
        "p90_early_stopping": statistics.early_stopping(values),
    }


def _faults(cell: Cell, device: DeviceInfo, findings: Findings) -> tuple[str, ...]:
    """Return the reasons for an invalid latency."""
    faults = []
    if device.kind != "real":
        faults.append(f"the processor is {device.kind}: its latencies say nothing about real ones")
    verification = None if cell.artifact is None else cell.artifact.verification
    if cell.role == "artifact" and verification is not None and verification.status == "failed":
        faults.append("the artifact failed verification: it does not compute what it should")
    if findings.check is not None and findings.check.status == "failed":
        faults.append(f"its answers on this device are wrong: {findings.check.reason}")
    return tuple(faults)


def _shortfalls(latency: Latency, samples: Samples, cell: Cell, protocol: Protocol) -> list[str]:
    """Return the demands of the preset that the measurement does not meet."""
    shortfalls = []
    measured_s = sum(latency.raw_ns) / 1e9 if samples.single else samples.spent_s
    rounds = f"timed in {counted(len(latency.blocks), 'round')} only, too few for an interval"
    if protocol.passes is not None:
        required_runs = protocol.passes * len(cell.inputs.feeds)
        if latency.n < required_runs:
            shortfalls.append(f"{latency.n} of {required_runs} runs were recorded")
    elif latency.n < protocol.min_runs or measured_s < _DURATION_TOLERANCE * protocol.min_s:
        shortfalls.append(
            f"{latency.n} run{'s' * (latency.n != 1)} in {measured_s:.1f} s within the limit of "
            f"{protocol.max_s:g} s, where the preset asks for {protocol.min_runs} "
            f"run{'s' * (protocol.min_runs != 1)} and {protocol.min_s:g} s"
        )
    if len(latency.blocks) < statistics.MIN_ROUNDS:
        shortfalls.append(rounds)
    return shortfalls


def _disturbances(latency: Latency, comparison: Comparison, cores: int | None) -> list[str]:
    """Return the signs that other causes than the model affected its latency."""
    disturbances = []
    if latency.drift is not None and abs(latency.drift) > _DRIFT_LIMIT:
        change = "slower" if latency.drift > 0 else "faster"
        disturbances.append(
            f"{abs(latency.drift):.0%} {change} in the last quarter of runs than in the first"
        )
    other = comparison.other_cores
    if other is not None and other > _OTHER_CORES_LIMIT:
        disturbances.append(f"other programs kept {other:.1f} of {cores} cores busy")
    before, after = comparison.before.thermal_status, comparison.after
    throttled = {before, None if after is None else after.thermal_status} - _COOL
    if throttled:
        disturbances.append(
            f"the device was throttled by heat ({', '.join(sorted(map(str, throttled)))})"
        )
    return disturbances


def _missing_checks(cell: Cell, findings: Findings) -> list[str]:
    if cell.artifact is None or cell.role != "artifact" or findings.check is not None:
        return []
    verification = cell.artifact.verification
    if verification is None or verification.status != "passed":
        return ["the artifact was not verified against its checkpoint"]
    return ["its answers on this device were not compared with the checkpoint's"]


def deflated_sizes(paths: Sequence[Path]) -> dict[Path, int]:
    """Return the size of each artifact after deflate, level 6, in two threads."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(paths, pool.map(deflated_bytes, paths), strict=True))


def deflated_bytes(path: Path) -> int:
    """Return the size of a file after deflate at level 6; of a folder, the sum over its files."""
    if path.is_dir():
        return sum(deflated_bytes(file) for file in path.rglob("*") if file.is_file())
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())
