"""Inference of one artifact with the tokenizer and sequence lengths of its bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edge.bundle import Artifact, Bundle
from edge.engines import get_engine, runtime_engine
from edge.engines.base import Engine, Session
from edge.errors import ConfigError
from edge.tasks import Outputs, Task, get_task
from edge.tokenization import Encoding, Tokenizer


def bundle_task(bundle: Bundle) -> Task:
    """Return the task of a bundle."""
    manifest = bundle.manifest
    return get_task(
        manifest.task,
        labels=manifest.labels,
        problem_type=manifest.problem_type,
        pairs=manifest.pairs,
        activation=manifest.activation,
        similarity=manifest.similarity,
    )


def bundle_tokenizer(bundle: Bundle) -> Tokenizer:
    """Return the tokenizer of a bundle."""
    info = bundle.manifest.tokenizer
    return Tokenizer.from_file(bundle.file(info.file), info)


def choose(
    bundle: Bundle, formats: Sequence[str], precisions: Sequence[str], engine: str | None
) -> list[tuple[Artifact, Engine]]:
    """Return the selected artifacts, each with the engine to run it in.

    engine: run in this engine only, skipping artifacts of other formats; by default in the first
    available one. Raises ConfigError when no artifact remains, EngineError when no engine is
    available for one.
    """
    named = get_engine(engine) if engine else None
    chosen = [
        (artifact, named or runtime_engine(*artifact.target_runtimes))
        for artifact in bundle.select(formats, precisions)
        if named is None or artifact.format == named.format
    ]
    if not chosen:
        raise ConfigError(f"{engine} runs none of the chosen artifacts: see edge inspect")
    return chosen


class Runner:
    """An artifact opened in an engine, run on one text at a time, as in an app."""

    def __init__(
        self, bundle: Bundle, artifact: Artifact, engine: Engine, *, threads: int = 1
    ) -> None:
        self.engine = engine
        self.artifact = artifact
        self.task = bundle_task(bundle)
        self.tokenizer = bundle_tokenizer(bundle)
        self._session: Session = self.engine.open(bundle.artifact_path(artifact), threads=threads)

    def infer(
        self, encodings: Iterable[Encoding], *, length: int | None = None
    ) -> Iterator[Outputs]:
        """Yield the outputs of each encoding, padded to `length` or the next accepted length."""
        names = [spec.name for spec in self.artifact.inputs]
        for encoding in encodings:
            size = length or self.artifact.fit_length(len(encoding))
            inputs = self.tokenizer.pad([encoding], size)
            outputs = self._session.run({name: inputs[name] for name in names})
            yield self.task.trim(outputs, 0, min(len(encoding), size))

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
