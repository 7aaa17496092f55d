"""`edge run`: from a teacher and labeled texts to a verified bundle and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bundle import Bundle, Manifest
from edge.config import Config
from edge.data import Columns
from edge.engines.runner import bundle_task
from edge.errors import ConfigError, MeasurementError
from edge.evaluate import Evaluation, evaluate
from edge.pipeline.baseline import BaselineName, baseline_maker, check_baseline
from edge.pipeline.config import RunRecipe
from edge.pipeline.ledger import Ledger, claim, is_run
from edge.provenance import InputPath, Word, describe, versions
from edge.sources import DataSource
from edge.storage import check_target, output_lock

if TYPE_CHECKING:
    from benchmark import BenchmarkConfig, BenchmarkResult, Report, Row
    from converters import ConvertConfig
    from distill import DistillConfig

STUDENT, BUNDLE = "student", "bundle"


# Keys of each section that are set by the run itself, so a recipe must not have them.
_RESERVED_KEYS = {
    "distill": {
        *("teacher", "train", "eval", "columns", "output", "allow_pickle", "trust_remote_code"),
    },
    "convert": {"source", "output"},
    "benchmark": {"bundles"},
}


class RunInputs(Config):
    """The inputs of a run. output: folder of the student, the bundle, the report and `run.json`.

    overrides: section -> keys and values that replace those of the recipe.
    """

    teacher: str
    train: str
    eval: str
    output: Path
    columns: Columns = Columns()
    allow_pickle: bool = False
    trust_remote_code: bool = False
    overrides: dict[str, dict[str, Any]] = {}


class RunResult(Config):
    """The results of a run; its files are in `output`.

    duration_s: by part, the time of those that ran now; parts kept from before are absent.
    """

    output: str
    bundle: str
    report: str
    distillation: dict[str, Any]
    manifest: Manifest
    evaluations: tuple[Evaluation, ...]
    rows: tuple[dict[str, Any], ...]
    not_measured: tuple[str, ...]
    duration_s: dict[str, float]


def run(recipe: RunRecipe, inputs: RunInputs) -> RunResult:
    """Distill, convert, verify, evaluate, benchmark, report; finished parts are kept.

    Raises the errors of its parts; mistakes in recipe or flags are raised before any work starts.
    """
    plan = _Plan(recipe, inputs)
    with output_lock(inputs.output):
        return _run(plan)


def _run(plan: _Plan) -> RunResult:
    from benchmark import remove_journal, write_report

    inputs = plan.inputs
    check_target(inputs.output, replaces=is_run, as_whole=False)
    claim(inputs.output)
    ledger = Ledger(inputs.output)
    distillation = _distil(plan, ledger)
    _convert(plan, ledger)
    bundle = Bundle.open(plan.bundle)
    evaluations = _evaluate(plan, ledger, bundle)
    report = _report(plan, distillation, evaluations, _benchmark(plan, ledger))
    write_report(inputs.output, report)
    # Removed last: until the report is written, it preserves the measurements.
    remove_journal(plan.journal)
    return RunResult(
        output=str(inputs.output),
        bundle=str(plan.bundle),
        report=str(inputs.output / "report.html"),
        distillation=distillation,
        manifest=bundle.manifest,
        evaluations=tuple(evaluations),
        rows=tuple(row.model_dump(mode="json") for row in report.rows),
        not_measured=tuple(report.not_measured),
        duration_s=ledger.duration_s,
    )


class _Plan:
    """The configurations of all parts, built and checked before the first part runs."""

    def __init__(self, recipe: RunRecipe, inputs: RunInputs) -> None:
        from benchmark import BenchmarkConfig
        from converters import ConvertConfig
        from distill import DistillConfig

        self.recipe, self.inputs = recipe, inputs
        self.student, self.bundle = inputs.output / STUDENT, inputs.output / BUNDLE
        self.journal = inputs.output / "measuring.jsonl"
        trust = {
            "allow_pickle": inputs.allow_pickle,
            "trust_remote_code": inputs.trust_remote_code,
        }
        data = {"train": inputs.train, "eval": inputs.eval, "columns": inputs.columns}
        self.distill: DistillConfig = DistillConfig.build(
            self._section("distill")
            | data
            | trust
            | {"teacher": inputs.teacher, "output": self.student},
            where=f"recipe {recipe.name}, distill",
        )
        self.convert: ConvertConfig = ConvertConfig.build(
            {"samples": inputs.eval, "columns": inputs.columns}
            | self._section("convert")
            | {"source": str(self.student), "output": self.bundle},
            where=f"recipe {recipe.name}, convert",
        )
        section = self._section("benchmark")
        self.baseline = str(section.pop("baseline", "bert-base"))
        self.benchmark: BenchmarkConfig = BenchmarkConfig.build(
            {"data": inputs.eval, "columns": inputs.columns}
            | section
            | {"bundles": (self.bundle,)},
            where=f"recipe {recipe.name}, benchmark",
        )
        self._check()

    def _check(self) -> None:
        """Raise the UserErrors of all parts that can be detected without a model."""
        from benchmark.devices import check_device
        from distill import check

        inputs, convert, benchmark = self.inputs, self.convert, self.benchmark
        task = check(self.distill)
        columns = convert.columns
        if convert.samples is not None:
            task.read(convert.samples, columns=columns, targets=False)
        if convert.calibration is not None:
            labelled = convert.max_drop is not None
            task.read(convert.calibration, columns=columns, targets=labelled)
        if benchmark.data is not None:
            task.read(benchmark.data, columns=benchmark.columns, targets=False)
        if benchmark.eval is not None:
            task.read(benchmark.eval, columns=benchmark.columns)
        check_baseline(self.baseline, allow_pickle=inputs.allow_pickle)
        check_device(benchmark.device)
        self._check_lengths()

    def _check_lengths(self) -> None:
        """Raise ConfigError for sequence lengths that the bundle will not have."""
        bundle_lengths = self.convert.seq_length or ()
        fixed_lengths = "tflite" in self.convert.format
        for length in self.benchmark.seq_length if bundle_lengths else ():
            if length > bundle_lengths[-1] or (fixed_lengths and length not in bundle_lengths):
                raise ConfigError(
                    f"benchmark seq_length {length} is not among the lengths that the bundle is "
                    f"made for, {', '.join(map(str, bundle_lengths))}: add it to convert "
                    "seq_length, or give --seq-length"
                )

    def _section(self, name: str) -> dict[str, Any]:
        section: dict[str, Any] = getattr(self.recipe, name)
        reserved = sorted(_RESERVED_KEYS[name] & section.keys())
        if reserved:
            raise ConfigError(
                f"recipe {self.recipe.name}, {name}: '{reserved[0]}' comes from the command line "
                "or from the parts before: leave it out there"
            )
        return section | self.inputs.overrides.get(name, {})


class _EvaluationInputs(Config):
    """The inputs of a run's evaluation, for its fingerprint."""

    bundle: InputPath
    data: DataSource
    columns: Columns
    threads: int


class _BenchmarkInputs(Config):
    """The inputs of a run's benchmark in addition to its `BenchmarkConfig`, for its fingerprint.

    machine: properties of this machine, None if another device is timed.
    """

    baseline: BaselineName
    machine: dict[str, Word | int | tuple[Word, ...] | None] | None


def _distil(plan: _Plan, ledger: Ledger) -> dict[str, Any]:
    from distill import distill

    return ledger.part(
        "distill",
        {**describe(plan.distill), "versions": versions("distill")},
        lambda: distill(plan.distill).to_dict(),
        output=plan.student,
    )


def _convert(plan: _Plan, ledger: Ledger) -> None:
    from converters import convert

    ledger.part(
        "convert",
        {**describe(plan.convert), "versions": versions("converters")},
        lambda: convert(plan.convert).model_dump(mode="json"),
        output=plan.bundle,
    )


def _evaluate(plan: _Plan, ledger: Ledger, bundle: Bundle) -> list[Evaluation]:
    config = _EvaluationInputs(
        bundle=plan.bundle,
        data=plan.inputs.eval,
        columns=plan.inputs.columns,
        threads=plan.benchmark.threads[0],
    )

    def work() -> dict[str, Any]:
        table = bundle_task(bundle).read(config.data, columns=config.columns)
        rows = evaluate(bundle, table, threads=config.threads)
        return {"artifacts": [row.model_dump(mode="json") for row in rows]}

    made_from = {**describe(config), "versions": versions("benchmark")}
    result = ledger.part("evaluate", made_from, work)
    return [Evaluation.model_validate(row) for row in result["artifacts"]]


def _benchmark(plan: _Plan, ledger: Ledger) -> BenchmarkResult:
    from benchmark import BenchmarkResult

    inputs = _BenchmarkInputs(baseline=plan.baseline, machine=_machine(plan.benchmark.device))
    result = ledger.part(
        "benchmark",
        {
            **describe(plan.benchmark),
            **describe(inputs),
            "versions": versions("benchmark"),
        },
        lambda: _measure(plan).model_dump(mode="json"),
    )
    return BenchmarkResult.model_validate(result)


def _machine(device: str) -> dict[str, Any] | None:
    """Return the properties that identify this machine; None for a device, known by its address."""
    from benchmark.measure.environment import describe as describe_machine

    if device != "local":
        return None
    return describe_machine().model_dump(include={"model", "soc", "abi", "cores", "cpu_features"})


def _measure(plan: _Plan) -> BenchmarkResult:
    from benchmark import benchmark

    maker = baseline_maker(plan.baseline, allow_pickle=plan.inputs.allow_pickle)
    result = benchmark(plan.benchmark, make_baseline=maker, journal=plan.journal, keep_journal=True)
    if result.failure is not None:
        raise MeasurementError(result.failure)
    return result


def _report(
    plan: _Plan,
    distillation: dict[str, Any],
    evaluations: Sequence[Evaluation],
    measured: BenchmarkResult,
) -> Report:
    """Return the report of a run: benchmark rows with the accuracies of the evaluation."""
    from benchmark import Distillation, Report

    summary = Distillation(
        recipe=distillation["recipe"],
        teacher=Path(plan.inputs.teacher).name,
        metric=distillation["metric"],
        teacher_value=distillation["teacher_value"],
        student_value=distillation["value"],
        teacher_parameters=distillation["teacher_parameters"],
        student_parameters=distillation["parameters"],
    )
    report = Report.of(measured, title=f"Run of {plan.recipe.name}", distillation=summary)
    rows = with_accuracies(report.rows, evaluations, reference=distillation["value"])
    return report.model_copy(update={"rows": rows})


def with_accuracies(
    rows: Sequence[Row], evaluations: Sequence[Evaluation], *, reference: float | None
) -> tuple[Row, ...]:
    """Add to each row the accuracy of its artifact, matched by format, target and precision.

    reference: the metric of the checkpoint.
    """
    from benchmark import Accuracy

    by_artifact = {(e.format, e.target, e.precision): e for e in evaluations}

    def with_accuracy(row: Row) -> Row:
        model = row.model
        evaluation = by_artifact.get((model.format, model.target or "", model.precision))
        if row.role != "artifact" or evaluation is None:
            return row
        accuracy = Accuracy(
            metric=evaluation.metric,
            value=evaluation.value,
            engine=evaluation.engine,
            samples=evaluation.samples,
            ref=reference,
        )
        return row.model_copy(update={"accuracy": accuracy})

    return tuple(map(with_accuracy, rows))
