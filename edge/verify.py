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

# Every n-th case also runs padded to the artifact's longest length.
_PADDED_EVERY = 3
# Verifications in parallel for small models; large ones are bound by memory, which each engine
# uses once or twice the model's size of.
_MAX_PARALLEL = 2
# Threads of one verification; more do not help at batch size 1.
_MAX_THREADS = 4
_SMALL_BYTES = 200_000_000
# Samples after which a clearly wrong artifact is not run on more of them.
_EARLY_STOP_SAMPLES = 8


def verify(
    bundle: Bundle, *, formats: Sequence[str] = (), precisions: Sequence[str] = ()
) -> list[Artifact]:
    """Run each artifact in each runtime it declares against the bundle's golden vectors.

    Returns the artifacts with new verifications; a failed one raises nothing. Raises
    VerificationError when the bundle's tokenizer gives other ids than the checkpoint's.
    """
    cases = bundle.golden_cases()
    _check_tokenizer(bundle, cases)
    chosen = bundle.select(formats, precisions)
    return list(_verified(bundle, [(a, a.runtimes or a.target_runtimes) for a in chosen], cases))


def verify_new(bundle: Bundle) -> Manifest:
    """Verify a new bundle and return its manifest with the runtimes that each artifact passed in.

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
    (verified,) = _verified(bundle, [(artifact, artifact.target_runtimes[:1])], cases)
    return verified.verifications[0]


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
    """Yield each artifact with one verification per runtime, the main runtime first.

    Engines release Python's global lock while they compute; some run in their own process.
    """
    stop = threading.Event()
    cores = os.cpu_count() or 1
    small = all(artifact.bytes < _SMALL_BYTES for artifact, _ in jobs)
    at_once = min(_MAX_PARALLEL, cores) if small else 1
    pool = ThreadPoolExecutor(max_workers=at_once)
    # Without parallel verifications, one uses more threads instead.
    run = functools.partial(
        _verify_in_runtime, bundle, cases, stop, threads=min(cores, _MAX_THREADS) // at_once
    )
    try:
        running = [
            (artifact, [pool.submit(run, artifact, runtime) for runtime in runtimes])
            for artifact, runtimes in jobs
        ]
        for artifact, futures in running:
            results = []
            for future in futures:
                with clock(f"verify {artifact.name}"):
                    result, seconds = future.result()
                say(f"verify {artifact.name} in {result.engine}: {seconds:.1f} s")
                results.append(result)
            yield artifact.model_copy(
                update={"verification": results[0], "verifications": tuple(results)}
            )
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _verify_in_runtime(
    bundle: Bundle,
    cases: list[GoldenCase],
    stop: threading.Event,
    artifact: Artifact,
    runtime: str,
    *,
    threads: int,
) -> tuple[Verification, float]:
    """Verify one artifact in one runtime; returns the verification and its duration in seconds."""
    start = time.perf_counter()
    try:
        verification = _compare(bundle, artifact, runtime_engine(runtime), cases, stop, threads)
    except EngineError as error:
        verification = Verification(status="unavailable", engine=runtime, reason=str(error))
    # Engines unpack weights once per length; the next engine may run in another process meanwhile.
    release_memory()
    return verification, time.perf_counter() - start


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
                if stop.is_set() or (
                    tally.samples == _EARLY_STOP_SAMPLES and tally.is_clearly_wrong(gate)
                ):
                    break
    except EngineError as error:
        return Verification(
            status="failed", engine=engine.name, engine_version=version, reason=str(error)
        )
    return _with_processor_hint(artifact, tally.verification(engine.name, version, gate))


def _with_processor_hint(artifact: Artifact, result: Verification) -> Verification:
    """Add cause and remedy to a failure that is caused by this processor's lack of VNNI."""
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
    """Yield each case with its encoding and own length, and some padded to the longest."""
    longest = artifact.sequence_lengths[-1]
    for index, case in enumerate(cases):
        encoding = Encoding(case.input_ids, case.token_type_ids)
        own_length = artifact.fit_length(len(encoding))
        yield case, encoding, own_length
        if index % _PADDED_EVERY == 0 and own_length != longest:
            yield case, encoding, longest


@dataclass
class Tally:
    """Comparison of outputs with the checkpoint's, accumulated over samples."""

    differences: list[float] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    products: list[tuple[float, float, float]] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    lengths: set[int] = field(default_factory=set)
    samples: int = 0
    finite: bool = True

    def add(
        self, task: Task, encoding: Encoding, outputs: Outputs, expected: Outputs, length: int
    ) -> None:
        """Compare one sample; raises EngineError for a shape that differs from the checkpoint's."""
        self.lengths.add(length)
        self.samples += 1
        for name, reference in expected.items():
            value = outputs.get(name)
            if value is None or value.shape != reference.shape:
                shape = None if value is None else value.shape
                raise EngineError(f"output '{name}' has shape {shape}, expected {reference.shape}")
            self._add_output(value.astype(np.float64), reference.astype(np.float64))
        answer, target = task.answer(outputs, encoding), task.answer(expected, encoding)
        if answer is not None and target is not None:
            self.agreements.append(float(np.mean(answer == target)))

    def _add_output(self, value: Array, reference: Array) -> None:
        # max(0, nan) is 0, so non-finite values need an explicit check.
        if not np.isfinite(value).all():
            self.finite = False
            return
        self.differences.append(float(np.abs(value - reference).max(initial=0.0)))
        self.scales.append(float(np.abs(reference).max(initial=0.0)))
        a, b = value.ravel(), reference.ravel()
        self.products.append((float(a @ b), float(a @ a), float(b @ b)))

    def is_clearly_wrong(self, gate: Gate) -> bool:
        """Return True if the outputs are too wrong for more samples to change the verdict."""
        return not self.finite or self._cosine() < 0.5 * gate.min_cosine

    def _cosine(self) -> float:
        ab, aa, bb = np.sum(self.products, axis=0) if self.products else (0.0, 0.0, 0.0)
        return float(ab / np.sqrt(aa * bb)) if aa and bb else 0.0

    def verification(self, engine: str, version: str | None, gate: Gate) -> Verification:
        """Return the verification of all samples against the limits of `gate`."""
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
        reason = _violation(gate, error, cosine, agreement)
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


def _violation(gate: Gate, error: float, cosine: float, agreement: float | None) -> str | None:
    """Return the first limit of `gate` that is violated, in words, or None."""
    if error >= gate.max_relative_error:
        return f"relative error {error:.2g}, allowed {gate.max_relative_error:.2g}"
    if cosine < gate.min_cosine:
        return f"cosine {cosine:.5f}, at least {gate.min_cosine} needed"
    if agreement is not None and agreement < gate.min_label_agreement:
        return f"label agreement {agreement:.3f}, at least {gate.min_label_agreement} needed"
    return None


def _check_tokenizer(bundle: Bundle, cases: list[GoldenCase]) -> None:
    """Raise VerificationError unless the bundle's tokenizer gives the checkpoint's ids."""
    tokenizer = bundle_tokenizer(bundle)
    for case in cases:
        pairs = None if case.text_pair is None else [case.text_pair]
        with hush():
            encoding = tokenizer.encode([case.text], pairs, max_length=bundle.manifest.max_length)[
                0
            ]
        if encoding.input_ids != case.input_ids or encoding.token_type_ids != case.token_type_ids:
            raise VerificationError(
                f"the bundle's tokenizer differs from the checkpoint's on {case.text[:60]!r}"
            )
