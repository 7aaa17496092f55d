"""From samples to rows: latencies, ratios, and whether they may be quoted."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark import environment, statistics
from benchmark.config import BenchmarkConfig, Protocol
from benchmark.plan import Cell, Plan
from benchmark.sampler import Comparison, Samples
from benchmark.schema import (
    ConditionsPair,
    DeviceInfo,
    Latency,
    ProtocolInfo,
    Ratio,
    Row,
    Runtime,
    Tool,
    Validity,
)
from edge import __version__

# Above these a latency is still shown, with a reservation.
_DRIFT_LIMIT = 0.10
_OTHER_CORES_LIMIT = 0.25
_CHUNK_BYTES = 1 << 20
_NS_PER_MS = 1e6
_ORDER = "rounds, order drawn anew in each"


@dataclass(frozen=True)
class RowMaker:
    """What all rows of one run share."""

    config: BenchmarkConfig
    plan: Plan
    device: DeviceInfo
    comparison: Comparison
    started_utc: str

    def rows(self) -> tuple[Row, ...]:
        """One row for each cell of the plan, timed or not."""
        measured = dict(zip(self.plan.timed, self.comparison.samples, strict=True))
        zipped = _deflated([c.path for c in self.plan.cells if c.role == "artifact"])
        run_id = (
            f"{self.started_utc.translate({ord(c): None for c in '-:'})}-{secrets.token_hex(4)}"
        )
        return tuple(self._row(cell, measured, zipped, run_id) for cell in self.plan.cells)

    def _row(
        self,
        cell: Cell,
        measured: Mapping[Cell, Samples],
        zipped: Mapping[Path, int],
        run_id: str,
    ) -> Row:
        samples = measured.get(cell)
        latency = None if samples is None else latency_of(samples, seed=self.config.seed)
        return Row(
            run_id=run_id,
            started_utc=self.started_utc,
            tool=Tool(
                name="edge-encoders",
                version=__version__,
                git=environment.commit(Path(__file__).resolve().parents[1]),
            ),
            role=cell.role,
            model=cell.model.model_copy(update={"bytes_zip": zipped.get(cell.path)}),
            runtime=Runtime(
                name=cell.engine,
                version=cell.version,
                provider="CPU",
                threads=self.config.threads,
                affinity=environment.affinity(),
            ),
            device=self.device,
            inputs=cell.inputs.info,
            protocol=self._protocol(samples),
            conditions=ConditionsPair(
                before=self.comparison.before,
                after=self.comparison.after,
                other_cores=self.comparison.other_cores,
            ),
            latency_ms=latency,
            memory=None if samples is None else samples.memory,
            ratio_to_baseline=self._ratio(cell, measured, "checkpoint"),
            ratio_same_engine=self._ratio(cell, measured, cell.model.format),
            validity=self._validity(cell, samples, latency),
        )

    def _protocol(self, samples: Samples | None) -> ProtocolInfo:
        protocol = self.config.demands
        return ProtocolInfo(
            preset="custom" if self.config.protocol else self.config.preset,
            warmup=None if samples is None else samples.warmed.runs,
            min_runs=protocol.min_runs,
            min_s=protocol.min_s,
            max_s=protocol.max_s,
            rounds=protocol.rounds,
            cooldown_s=0,
            order=_ORDER,
            seed=self.config.seed,
        )

    def _ratio(
        self, cell: Cell, measured: Mapping[Cell, Samples], format_name: str
    ) -> Ratio | None:
        """Against the baseline's cell of a format; None where either side was not timed."""
        reference = next(
            (c for c in measured if c.role == "baseline" and c.model.format == format_name), None
        )
        if reference is None or cell not in measured:
            return None
        above, below = measured[reference].blocks, measured[cell].blocks
        return ratio_of(above, below, baseline=reference, seed=self.config.seed)

    def _validity(self, cell: Cell, samples: Samples | None, latency: Latency | None) -> Validity:
        if samples is None or latency is None:
            return Validity(status="not_measured", reasons=(cell.reason or "not timed",))
        wrong = _faults(cell, self.device)
        if wrong:
            return Validity(status="invalid", reasons=wrong)
        doubts = [
            *_shortfalls(latency, self.config.demands),
            *_disturbances(latency, self.comparison.other_cores, self.device.cores),
            *_missing_checks(cell),
        ]
        return Validity(status="limited" if doubts else "valid", reasons=tuple(doubts))


def latency_of(samples: Samples, *, seed: int) -> Latency:
    """All figures of one cell, in milliseconds."""
    raw_ns = statistics.pooled(samples.blocks)
    values = raw_ns / _NS_PER_MS
    p50, p90, p95, p99 = (float(v) for v in np.percentile(values, [50, 90, 95, 99]))
    interval = statistics.median_interval(samples.blocks, seed=seed)
    return Latency(
        load=samples.loaded.load_ms,
        first=samples.loaded.first_ms,
        n=len(values),
        mean=float(values.mean()),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99 if len(values) >= statistics.P99_MIN_RUNS else None,
        min=float(values.min()),
        max=float(values.max()),
        mad=statistics.median_deviation(values),
        ci95=None if interval is None else (interval[0] / _NS_PER_MS, interval[1] / _NS_PER_MS),
        p90_early_stopping=statistics.early_stopping(values),
        drift=statistics.drift(values),
        raw_ns=tuple(raw_ns.tolist()),
        blocks=tuple((number, len(samples.blocks[number])) for number in sorted(samples.blocks)),
    )


def ratio_of(
    reference: statistics.Blocks, candidate: statistics.Blocks, *, baseline: Cell, seed: int
) -> Ratio | None:
    """The ratio of two cells, with its interval."""
    found = statistics.ratio(reference, candidate, seed=seed)
    if found is None:
        return None
    value, interval = found
    return Ratio(
        value=value,
        ci95=interval,
        baseline=baseline.model.id,
        engine=baseline.engine,
        indistinguishable=interval is None or interval[0] <= 1 <= interval[1],
    )


def _faults(cell: Cell, device: DeviceInfo) -> tuple[str, ...]:
    """What makes a latency worthless."""
    found = []
    if device.kind != "real":
        found.append(f"the processor is {device.kind}: its latencies say nothing about real ones")
    if cell.verification is not None and cell.verification.status == "failed":
        found.append("the artifact failed verification: it does not compute what it should")
    return tuple(found)


def _shortfalls(latency: Latency, protocol: Protocol) -> list[str]:
    """Where less was measured than the preset demands."""
    found = []
    measured_s = sum(latency.raw_ns) / 1e9
    if latency.n < protocol.min_runs or measured_s < protocol.min_s:
        found.append(
            f"{latency.n} runs in {measured_s:.1f} s within the limit of {protocol.max_s:g} s, "
            f"where the preset asks for {protocol.min_runs} runs and {protocol.min_s:g} s"
        )
    if len(latency.blocks) < statistics.MIN_ROUNDS:
        found.append(f"timed in {len(latency.blocks)} rounds only, too few for an interval")
    return found


def _disturbances(latency: Latency, other_cores: float | None, cores: int | None) -> list[str]:
    """Signs that something else than the model decided how long it took."""
    found = []
    if latency.drift is not None and abs(latency.drift) > _DRIFT_LIMIT:
        change = "slower" if latency.drift > 0 else "faster"
        found.append(
            f"{abs(latency.drift):.0%} {change} in the last quarter of runs than in the first"
        )
    if other_cores is not None and other_cores > _OTHER_CORES_LIMIT:
        found.append(f"other programs kept {other_cores:.1f} of {cores} cores busy")
    return found


def _missing_checks(cell: Cell) -> list[str]:
    if cell.role == "artifact" and (
        cell.verification is None or cell.verification.status != "passed"
    ):
        return ["the artifact was not verified against its checkpoint"]
    return []


def _deflated(paths: Sequence[Path]) -> dict[Path, int]:
    """Size of each artifact after deflate, level 6; zlib frees the interpreter while it works."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(paths, pool.map(deflated_bytes, paths), strict=True))


def deflated_bytes(path: Path) -> int:
    """Size of a file after deflate at level 6; of a folder, the sum over its files."""
    if path.is_dir():
        return sum(deflated_bytes(file) for file in path.rglob("*") if file.is_file())
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())
