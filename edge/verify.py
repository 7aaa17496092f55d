"""Run every artifact in every engine it claims and compare it with the checkpoint."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from edge.bundle import Artifact, Bundle, GoldenCase, Manifest, Verification
from edge.console import clock, hush, say
from edge.engines import runtime_engine
from edge.engines.base import Array, Engine
from edge.engines.runner import Runner, bundle_tokenizer
from edge.errors import EngineError, VerificationError
from edge.formats import target_without_vnni
from edge.precision import Gate, Precision
from edge.process.memory import release_memory
from edge.process.processor import saturates_int8
from edge.tasks import Outputs, Task
from edge.tokenization import Encoding

# Besides its own length, every so many-th case also runs at the artifact's longest.
_PADDED_EVERY = 3
# Engines that run side by side, if a model is small: each holds it once or twice, and large ones
# wait for the same memory anyway.
_AT_ONCE = 2
# Threads of one verification; more wait for each other at batch 1.
_MOST = 4
_SMALL_BYTES = 200_000_000
# Samples after which an artifact that answers wrong throughout needs no more of them.
_ENOUGH = 8


def verify(
    bundle: Bundle, *, formats: Sequence[str] = (), precisions: Sequence[str] = ()
) -> list[Artifact]:
    """Run each artifact in each runtime it declares against the bundle's golden vectors.

    Returns the artifacts with fresh verifications; none is raised for a failed one. Raises
    VerificationError when the bundle's tokenizer does not give the checkpoint's ids.
    """
    cases = bundle.golden_cases()
    _check_tokenizer(bundle, cases)
    chosen = bundle.select(formats, precisions)
    return list(_verified(bundle, [(a, a.runtimes or a.target_runtimes) for a in chosen], cases))


def verify_new(bundle: Bundle) -> Manifest:
    """Verify a bundle that was just written and declare the runtimes each artifact passed in.

    Raises VerificationError for the first artifact that fails in its target's main runtime.
    """
    cases = bundle.golden_cases()
    _check_tokenizer(bundle, cases)
    artifacts = []
    jobs = [(artifact, artifact.target_runtimes) for artifact in bundle.manifest.artifacts]
    with contextlib.closing(_verified(bundle, jobs, cases)) as verified:
        for checked in verified:
            require_passed(checked)
            passed = zip(checked.target_runtimes, checked.verifications, strict=True)
            declared = tuple(name for name, result in passed if result.status == "passed")
            artifacts.append(checked.model_copy(update={"runtimes": declared}))
    return bundle.manifest.model_copy(update={"artifacts": tuple(artifacts)})


def check(bundle: Bundle, artifact: Artifact, cases: list[GoldenCase]) -> Verification:
    """Run one artifact in its target's main runtime; a failure is returned, not raised."""
    (found,) = _verified(bundle, [(artifact, artifact.target_runtimes[:1])], cases)
    return found.verifications[0]


def require_passed(artifact: Artifact) -> None:
    """Raise VerificationError unless the artifact passed in its target's main runtime."""
    result = artifact.verification
    assert result is not None
    if result.status != "passed":
        raise VerificationError(
            f"{artifact.name} {artifact.verdict(result)} in {result.engine}: {result.reason}"
        )


def _verified(
    bundle: Bundle,
    jobs: Sequence[tuple[Artifact, Sequence[str]]],
    cases: list[GoldenCase],
) -> Generator[Artifact, None, None]:
    """Each artifact with one verification a runtime, the first of them the main one.

    Engines compute outside of Python's lock, some in processes of their own.
    """
    stop = threading.Event()
    cores = os.cpu_count() or 1
    small = all(artifact.bytes < _SMALL_BYTES for artifact, _ in jobs)
    at_once = min(_AT_ONCE, cores) if small else 1
    pool = ThreadPoolExecutor(max_workers=at_once)
    # What does not run side by side is spread over the cores instead.
    run = functools.partial(_trial, bundle, cases, stop, threads=min(cores, _MOST) // at_once)
    try:
        running = [
            (artifact, [pool.submit(run, artifact, runtime) for runtime in runtimes])
            for artifact, runtimes in jobs
        ]
        for artifact, trials in running:
            results = []
            for trial in trials:
                with clock(f"verify {artifact.name}"):
                    result, seconds = trial.result()
                say(f"verify {artifact.name} in {result.engine}: {seconds:.1f} s")
                results.append(result)
            yield artifact.model_copy(
                update={"verification": results[0], "verifications": tuple(results)}
            )
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _trial(
    bundle: Bundle,
    cases: list[GoldenCase],
    stop: threading.Event,
    artifact: Artifact,
    runtime: str,
    *,
    threads: int,
) -> tuple[Verification, float]:
    """One artifact in one runtime, and how many seconds that took."""
    start = time.perf_counter()
    try:
        found = _compare(bundle, artifact, runtime_engine(runtime), cases, stop, threads)
    except EngineError as error:
        found = Verification(status="unavailable", engine=runtime, reason=str(error))
    # Engines unpack weights once a length; the next one may run in a process of its own beside it.
    release_memory()
    return found, time.perf_counter() - start


def _compare(
    bundle: Bundle,
    artifact: Artifact,
    engine: Engine,
    cases: list[GoldenCase],
    stop: threading.Event,
    threads: int,
) -> Verification:
    version = engine.availability().version
    gate = Precision(artifact.precision).gate
    tally = Tally()
    try:
        with hush(), Runner(bundle, artifact, engine, threads=threads) as runner:
            for case, encoding, length in _runs(artifact, cases):
                outputs = next(runner.infer([encoding], length=length))
                tally.add(runner.task, encoding, outputs, case.outputs, length)
                if stop.is_set() or (tally.samples == _ENOUGH and tally.is_hopeless(gate)):
                    break
    except EngineError as error:
        return Verification(
            status="failed", engine=engine.name, engine_version=version, reason=str(error)
        )
    return _explained(artifact, tally.judge(engine.name, version, gate))


def _explained(artifact: Artifact, result: Verification) -> Verification:
    """The same verdict; a failure that this processor causes says so, and what to do."""
    target = target_without_vnni(artifact.format, artifact.target, artifact.precision)
    at_fault = result.status == "failed" and result.engine == "onnxruntime"
    if not at_fault or target is None or not saturates_int8():
        return result
    reason = (
        f"{result.reason}; this processor lacks VNNI, so sums of 8-bit products overflow: for "
        f"such processors add --target {target}, for others convert on one that has VNNI"
    )
    return result.model_copy(update={"reason": reason})


def _runs(
    artifact: Artifact, cases: list[GoldenCase]
) -> Iterator[tuple[GoldenCase, Encoding, int]]:
    """Each case at its own length, and some padded to the longest."""
    longest = artifact.sequence_lengths[-1]
    for index, case in enumerate(cases):
        encoding = Encoding(case.input_ids, case.token_type_ids)
        own = artifact.fit_length(len(encoding))
        yield case, encoding, own
        if index % _PADDED_EVERY == 0 and own != longest:
            yield case, encoding, longest


@dataclass
class Tally:
    """Differences collected over samples."""

    differences: list[float] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    products: list[tuple[float, float, float]] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    lengths: set[int] = field(default_factory=set)
    samples: int = 0
    finite: bool = True

    def add(
        self, task: Task, encoding: Encoding, found: Outputs, expected: Outputs, length: int
    ) -> None:
        """Count one sample; a shape that differs from the checkpoint's is an EngineError."""
        self.lengths.add(length)
        self.samples += 1
        for name, reference in expected.items():
            value = found.get(name)
            if value is None or value.shape != reference.shape:
                shape = None if value is None else value.shape
                raise EngineError(f"output '{name}' has shape {shape}, expected {reference.shape}")
            self._add_output(value.astype(np.float64), reference.astype(np.float64))
        ours, theirs = task.answer(found, encoding), task.answer(expected, encoding)
        if ours is not None and theirs is not None:
            self.agreements.append(float(np.mean(ours == theirs)))

    def _add_output(self, value: Array, reference: Array) -> None:
        # max(0, nan) is 0, so values that are not finite are looked for, not found by chance.
        if not np.isfinite(value).all():
            self.finite = False
            return
        self.differences.append(float(np.abs(value - reference).max(initial=0.0)))
        self.scales.append(float(np.abs(reference).max(initial=0.0)))
        a, b = value.ravel(), reference.ravel()
        self.products.append((float(a @ b), float(a @ a), float(b @ b)))

    def is_hopeless(self, gate: Gate) -> bool:
        """Whether the answers are wrong beyond what more samples could mend."""
        return not self.finite or self._cosine() < 0.5 * gate.min_cosine

    def _cosine(self) -> float:
        ab, aa, bb = np.sum(self.products, axis=0) if self.products else (0.0, 0.0, 0.0)
        return float(ab / np.sqrt(aa * bb)) if aa and bb else 0.0

    def judge(self, engine: str, version: str | None, gate: Gate) -> Verification:
        """The verdict of `gate` on everything added."""
        if not self.finite:
            return Verification(
                status="failed",
                engine=engine,
                engine_version=version,
                samples=self.samples,
                reason="outputs are not finite",
            )
        error = max(self.differences) / max(max(self.scales), 1e-12)
        cosine = self._cosine()
        agreement = float(np.mean(self.agreements)) if self.agreements else None
        reason = _objection(gate, error, cosine, agreement)
        return Verification(
            status="failed" if reason else "passed",
            engine=engine,
            engine_version=version,
            max_relative_error=error,
            cosine=cosine,
            label_agreement=agreement,
            samples=self.samples,
            sequence_lengths=tuple(sorted(self.lengths)),
            reason=reason,
        )


def _objection(gate: Gate, error: float, cosine: float, agreement: float | None) -> str | None:
    """What is wrong, or None."""
    if error >= gate.max_relative_error:
        return f"relative error {error:.2g}, allowed {gate.max_relative_error:.2g}"
    if cosine < gate.min_cosine:
        return f"cosine {cosine:.5f}, at least {gate.min_cosine} needed"
    if agreement is not None and agreement < gate.min_label_agreement:
        return f"label agreement {agreement:.3f}, at least {gate.min_label_agreement} needed"
    return None


def _check_tokenizer(bundle: Bundle, cases: list[GoldenCase]) -> None:
    """The bundle's tokenizer must give the checkpoint's ids, or apps would be wrong."""
    tokenizer = bundle_tokenizer(bundle)
    for case in cases:
        pairs = None if case.text_pair is None else [case.text_pair]
        with hush():
            found = tokenizer.encode([case.text], pairs, max_length=bundle.manifest.max_length)[0]
        if found.input_ids != case.input_ids or found.token_type_ids != case.token_type_ids:
            raise VerificationError(
                f"the bundle's tokenizer differs from the checkpoint's on {case.text[:60]!r}"
            )
