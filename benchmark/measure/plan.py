"""The plan of a comparison: models, engines and inputs."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmark.config import DEFAULT_LENGTH, Baseline, BenchmarkConfig, Setting
from benchmark.devices import Device, Job, TextInputs
from benchmark.measure.inputs import SAMPLES, InputSet, Texts, make_inputs, read_texts
from benchmark.schema import Model
from benchmark.titles import engine_title
from edge.bundle import Artifact, Bundle
from edge.data import Table
from edge.engines.runner import bundle_task
from edge.errors import ConfigError
from edge.evaluate import bundle_examples
from edge.signature import SHORTEST_LENGTH

if TYPE_CHECKING:
    from edge.checkpoint import Checkpoint

Role = Literal["artifact", "baseline"]
_REFERENCE_ENGINE = "pytorch"
_FULL_PRECISION = "fp32"
# Formats whose models take several texts at once; the others are made for one.
_BATCHED = ("onnx",)


@dataclass(frozen=True, eq=False)
class Cell:
    """One model in one engine.

    version: the engine's. reason: reason for not timing it, with the remedy; None if it is timed.
    bundle, artifact: its source; None for a checkpoint.
    """

    role: Role
    label: str
    model: Model
    engine: str
    version: str | None
    path: Path
    inputs: InputSet
    reason: str | None = None
    bundle: Bundle | None = None
    artifact: Artifact | None = None
    text_inputs: TextInputs | None = None

    def job(self, threads: int) -> Job:
        return Job(self.label, self.engine, self.path, threads, self.inputs.feeds, self.text_inputs)


@dataclass(frozen=True)
class Plan:
    """All cells of a comparison."""

    cells: tuple[Cell, ...]
    setting: Setting

    @property
    def timed(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.reason is None)

    def without(self, reasons: Mapping[int, str]) -> Plan:
        """Return the plan without some of `timed`; reasons: by their number."""
        left_out = {self.timed[number]: reason for number, reason in reasons.items()}
        cells = (replace(c, reason=left_out[c]) if c in left_out else c for c in self.cells)
        return replace(self, cells=tuple(cells))


class Planner:
    """The bundles of a benchmark, and the comparisons that time them on a device.

    Raises BundleError, CheckpointError, DataError or ConfigError if the request cannot be met.
    """

    def __init__(self, config: BenchmarkConfig, device: Device) -> None:
        self._config, self._device = config, device
        bundles = [Bundle.open(path, checksums=True) for path in dict.fromkeys(config.bundles)]
        self._selected = [
            (bundle, artifact)
            for bundle in bundles
            for artifact in bundle.select(config.format, config.precision)
        ]
        self._names = _names([*(bundle.path for bundle, _ in self._selected), *config.checkpoints])
        # Hashing weights takes as long as reading them: once, not at every point of a sweep.
        self._open_baseline = functools.cache(Bundle.open)
        self._checkpoint = functools.cache(_open_checkpoint)
        self.lengths = self._lengths()
        # Read before a baseline is made, which takes minutes, so that a mistake costs nothing.
        self._texts_by_point = {
            (bundle.path, length, batch): self._texts(bundle, length, batch)
            for bundle in {bundle.path: bundle for bundle, _ in self._selected}.values()
            for length, batch in itertools.product(self.lengths, config.batch)
        }
        self.tables = self._tables()

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of the selected artifacts that can be timed."""
        artifacts = [artifact for _, artifact in self._selected]
        return tuple(dict.fromkeys(a.format for a in artifacts if self._obstacle(a) is None))

    @property
    def settings(self) -> list[Setting]:
        """All points of the sweep."""
        config = self._config
        points = itertools.product(config.threads, self.lengths, config.batch)
        return [Setting(*point) for point in points]

    def plan(self, setting: Setting, baseline: Baseline | None) -> Plan:
        """Return the cells at a point of the sweep."""
        read = {
            bundle.path: self._texts_by_point[bundle.path, setting.seq_length, setting.batch]
            for bundle, _ in self._selected
        }
        cells = [
            self._artifact_cell(bundle, artifact, setting, read[bundle.path])
            for bundle, artifact in self._selected
        ]
        first = next(iter(read.values()))
        timed = [cell for cell in cells if cell.reason is None]
        for path in self._config.checkpoints:
            cells.append(self._checkpoint_cell("artifact", self._names[path], path, setting, first))
        if baseline is not None and timed:
            engines = list(dict.fromkeys((cell.model.format, cell.engine) for cell in timed))
            cells += self._baseline_cells(baseline, engines, setting, first)
        return Plan(tuple(cells), setting)

    def _texts(self, bundle: Bundle, length: int, batch: int) -> Texts:
        config = self._config
        return read_texts(
            bundle,
            length,
            data=config.data,
            columns=config.columns,
            seed=config.seed,
            count=None if config.effective_protocol.passes else max(SAMPLES, batch),
        )

    def _tables(self) -> dict[Path, Table]:
        """Read the evaluation rows for the device, as the task of each bundle reads them."""
        config = self._config
        if config.eval is None:
            return {}
        tables = {}
        for bundle in {bundle.path: bundle for bundle, _ in self._selected}.values():
            table = bundle_task(bundle).read(config.eval, columns=config.columns)
            # Labels that do not fit are better refused now than when every model has been timed.
            bundle_examples(bundle, table)
            tables[bundle.path] = table
        return tables

    def _obstacle(self, artifact: Artifact) -> str | None:
        """Return the reason for not timing an artifact there, with the remedy, or None."""
        availability = self._device.availability(self._engine(artifact))
        return None if availability.available else f"{availability.reason} ({availability.remedy})"

    def _lengths(self) -> tuple[int, ...]:
        artifacts = [artifact for _, artifact in self._selected]
        # Artifacts that cannot be timed anyway must not decide, unless there are no others.
        timed = [a for a in artifacts if self._obstacle(a) is None] or artifacts
        lengths = self._config.seq_length
        for length in lengths:
            refusing = [artifact for artifact in timed if not _accepts(artifact, length)]
            # In a sweep it is enough that one takes part at each length.
            if refusing and (len(lengths) == 1 or len(refusing) == len(timed)):
                raise ConfigError(
                    f"{refusing[0].name} does not accept {length} tokens, it accepts "
                    f"{_accepted(refusing[0])}: choose another --seq-length, or leave the artifact "
                    "out with --format or --precision"
                )
        return lengths or (_usual_length(timed),)

    @property
    def baseline_lengths(self) -> tuple[int, ...]:
        """Lengths in tokens that a baseline has to accept."""
        if self._config.padding == "fixed":
            return self.lengths
        shorter = {
            n for _, a in self._selected for n in a.sequence_lengths if n < max(self.lengths)
        }
        return tuple(sorted({*self.lengths, *shorter}))

    def _artifact_cell(
        self, bundle: Bundle, artifact: Artifact, setting: Setting, texts: Texts
    ) -> Cell:
        name = self._names[bundle.path]
        alone = len({bundle.path for bundle, _ in self._selected}) == 1
        label = artifact.name if alone else f"{name}/{artifact.name}"
        return self._cell(
            "artifact",
            label,
            f"{name}/{artifact.name}",
            (bundle, artifact),
            setting,
            self._inputs(artifact, setting, texts),
            texts,
        )

    def _cell(
        self,
        role: Role,
        label: str,
        name: str,
        owner: tuple[Bundle, Artifact],
        setting: Setting,
        inputs: InputSet,
        texts: Texts,
    ) -> Cell:
        bundle, artifact = owner
        engine = self._engine(artifact)
        reason = self._obstacle(artifact) or _setting_obstacle(artifact, setting)
        return Cell(
            role=role,
            label=label,
            model=_model(name, bundle, artifact),
            engine=engine,
            version=self._version(engine),
            path=bundle.artifact_path(artifact),
            inputs=inputs,
            reason=reason,
            bundle=bundle,
            artifact=artifact,
            # A baseline stands for what a model costs; its texts may be of another vocabulary.
            text_inputs=_text_inputs(bundle, artifact, setting, texts, self._config.padding)
            if role == "artifact"
            else None,
        )

    def _inputs(
        self, artifact: Artifact, setting: Setting, texts: Texts, vocabulary: int | None = None
    ) -> InputSet:
        return make_inputs(
            texts,
            [spec.name for spec in artifact.inputs],
            length=setting.seq_length,
            batch=setting.batch,
            fit=artifact.fit_length if self._config.padding == "shortest" else None,
            vocabulary=vocabulary,
        )

    def _baseline_cells(
        self,
        baseline: Baseline,
        engines: Iterable[tuple[str, str]],
        setting: Setting,
        texts: Texts,
    ) -> list[Cell]:
        """Return the baseline's cells: in PyTorch, and in every engine of a timed artifact."""
        cells = []
        if baseline.checkpoint is not None:
            name, path = baseline.name, baseline.checkpoint
            cells.append(self._checkpoint_cell("baseline", name, path, setting, texts))
        if baseline.bundle is not None:
            bundle = self._open_baseline(baseline.bundle)
            for form, engine in engines:
                artifact = self._baseline_artifact(bundle, form, engine)
                if artifact is None:
                    continue
                title = f"{baseline.name} in {engine_title(engine)}"
                vocabulary = bundle.manifest.tokenizer.vocabulary_size
                inputs = self._inputs(artifact, setting, texts, vocabulary)
                owner = (bundle, artifact)
                cell = self._cell("baseline", title, baseline.name, owner, setting, inputs, texts)
                cells.append(replace(cell, engine=engine, version=self._version(engine)))
        return cells

    def _baseline_artifact(self, bundle: Bundle, form: str, engine: str) -> Artifact | None:
        """Return the baseline's artifact for an engine: the fp32 one, else the first."""
        candidates = [a for a in bundle.manifest.artifacts if a.format == form]
        candidates = [a for a in candidates if engine in (self._engine(a), *a.runtimes)]
        main = [a for a in candidates if self._engine(a) == engine]
        full = [a for a in (*main, *candidates) if a.precision == _FULL_PRECISION]
        return next(iter((*full, *main, *candidates)), None)

    def _version(self, engine: str) -> str | None:
        return self._device.availability(engine).version

    def _engine(self, artifact: Artifact) -> str:
        return self._device.engine(artifact.format, artifact.target_runtimes)

    def _checkpoint_cell(
        self, role: Role, name: str, path: Path, setting: Setting, texts: Texts
    ) -> Cell:
        checkpoint, model = self._checkpoint(path)
        config = checkpoint.config
        positions = getattr(config, "max_position_embeddings", None) or setting.seq_length
        if setting.seq_length > positions:
            raise ConfigError(
                f"the {'baseline' if role == 'baseline' else 'model'} {name} accepts up to "
                f"{positions} tokens, not "
                f"{setting.seq_length}: use --seq-length {positions} or less"
            )
        types = getattr(config, "type_vocab_size", 0)
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
        availability = self._device.availability(_REFERENCE_ENGINE)
        model_id = name if role == "baseline" else f"{name}/checkpoint-{_FULL_PRECISION}"
        return Cell(
            role=role,
            label=f"{name} in {engine_title(_REFERENCE_ENGINE)}",
            model=model.model_copy(update={"id": model_id}),
            engine=_REFERENCE_ENGINE,
            version=availability.version,
            path=checkpoint.path,
            inputs=make_inputs(
                texts,
                names,
                length=setting.seq_length,
                batch=setting.batch,
                fit=_any_length if self._config.padding == "shortest" else None,
                vocabulary=config.vocab_size,
                types=types,
            ),
            reason=None
            if availability.available
            else f"{availability.reason} ({availability.remedy})",
        )


def _open_checkpoint(path: Path) -> tuple[Checkpoint, Model]:
    """Open a checkpoint; return it and its description for a row."""
    from edge.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(path)
    weights = sorted(checkpoint.path.glob("*.safetensors"))
    return checkpoint, Model(
        id=path.resolve().name,
        format="checkpoint",
        precision=_FULL_PRECISION,
        sha256=checkpoint.weights_sha256,
        bytes=sum(file.stat().st_size for file in weights),
        params=_parameters(weights),
        arch=str(checkpoint.config.model_type),
    )


def _any_length(tokens: int) -> int:
    return max(tokens, SHORTEST_LENGTH)


def _setting_obstacle(artifact: Artifact, setting: Setting) -> str | None:
    if not _accepts(artifact, setting.seq_length):
        return f"it accepts {_accepted(artifact)} tokens, not {setting.seq_length}"
    if setting.batch > 1 and artifact.format not in _BATCHED:
        return f"it takes one text at a time, not {setting.batch}"
    return None


def _text_inputs(
    bundle: Bundle, artifact: Artifact, setting: Setting, texts: Texts, padding: str
) -> TextInputs:
    info = bundle.manifest.tokenizer
    lengths: tuple[int, ...] = (setting.seq_length,)
    dynamic = padding == "shortest" and artifact.dynamic_sequence
    if dynamic:
        lengths = (SHORTEST_LENGTH, setting.seq_length)
    elif padding == "shortest":
        lengths = tuple(n for n in artifact.sequence_lengths if n <= setting.seq_length)
    return TextInputs(
        tokenizer=bundle.file(info.file),
        texts=texts.texts[:SAMPLES],
        pairs=None if texts.pairs is None else texts.pairs[:SAMPLES],
        lengths=lengths,
        dynamic=dynamic,
        pad_id=info.pad_token_id,
        names=tuple(spec.name for spec in artifact.inputs),
    )


def _usual_length(artifacts: Sequence[Artifact]) -> int:
    """Return 128 tokens if all accept it, else the next shorter length common to all."""
    # Every length that could be the answer: those that some artifact names, and the default.
    options = {DEFAULT_LENGTH, *(n for a in artifacts for n in a.sequence_lengths)}
    common = sorted(n for n in options if all(_accepts(a, n) for a in artifacts))
    if not common:
        lengths = "; ".join(f"{a.name}: {_accepted(a)}" for a in artifacts)
        raise ConfigError(
            f"no sequence length fits all artifacts ({lengths}): choose some with --format or "
            "--precision"
        )
    short = [n for n in common if n <= DEFAULT_LENGTH]
    return short[-1] if short else common[0]


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each folder: its own name, or its path if several share that name."""
    paths = list(dict.fromkeys(paths))
    short = [path.resolve().name for path in paths]
    return {p: n if short.count(n) == 1 else str(p) for p, n in zip(paths, short, strict=True)}


def _accepts(artifact: Artifact, length: int) -> bool:
    if artifact.dynamic_sequence:
        return length <= artifact.sequence_lengths[-1]
    return length in artifact.sequence_lengths


def _accepted(artifact: Artifact) -> str:
    if artifact.dynamic_sequence:
        return f"up to {artifact.sequence_lengths[-1]}"
    return " or ".join(str(n) for n in artifact.sequence_lengths)


def _model(name: str, bundle: Bundle, artifact: Artifact) -> Model:
    source = bundle.manifest.source
    return Model(
        id=name,
        format=artifact.format,
        precision=artifact.precision,
        target=artifact.target,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        params=source.parameters,
        arch=source.architecture,
    )


def _parameters(weights: Iterable[Path]) -> int:
    """Count the parameters in safetensors files, from their headers alone."""
    from safetensors import safe_open

    count = 0
    for file in weights:
        with safe_open(file, framework="numpy") as tensors:
            names = tensors.keys()
            count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    return count
