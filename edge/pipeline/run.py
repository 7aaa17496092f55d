"""`edge run`: a teacher and labelled texts become a verified bundle and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import __version__
from edge.bundle import Bundle, Manifest, is_bundle
from edge.checkpoint import glance, open_checkpoint
from edge.config import Config
from edge.data import Columns
from edge.engines.runner import bundle_task
from edge.errors import MeasurementError
from edge.evaluate import Evaluation, evaluate
from edge.pipeline.baseline import baseline_maker
from edge.pipeline.config import RunRecipe
from edge.pipeline.ledger import Ledger, claim, is_run
from edge.storage import check_target, output_lock

if TYPE_CHECKING:
    from benchmark import BenchmarkConfig, BenchmarkResult, Report, Row
    from converters import ConvertConfig
    from distill import DistillConfig

STUDENT, BUNDLE = "student", "bundle"


class RunInputs(Config):
    """What a run works on. output holds the student, the bundle, the report and `run.json`.

    overrides: section -> keys that replace the recipe's own.
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
    """What a run found; the files are in `output`."""

    output: str
    bundle: str
    report: str
    distillation: dict[str, Any]
    manifest: Manifest
    evaluations: tuple[Evaluation, ...]
    rows: tuple[dict[str, Any], ...]
    not_measured: tuple[str, ...]


def run(recipe: RunRecipe, inputs: RunInputs) -> RunResult:
    """Distil, convert, verify, evaluate, benchmark, report; parts done before are kept.

    Raises what its parts raise; a mistake in the recipe or the flags before any work starts.
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
    # Last of all: until now it would have saved the measurement.
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
    )


class _Plan:
    """Every part's configuration, built and so checked before the first part runs."""

    def __init__(self, recipe: RunRecipe, inputs: RunInputs) -> None:
        from benchmark import BenchmarkConfig
        from converters import ConvertConfig
        from distill import DistillConfig, load_recipe

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
        load_recipe(self.distill.recipe)
        if (known := glance(inputs.teacher)) is not None:
            # A mistake in a file is told before Transformers is loaded.
            for file in (inputs.train, inputs.eval):
                known.check_file(file, columns=inputs.columns)
        task = open_checkpoint(
            inputs.teacher,
            allow_pickle=inputs.allow_pickle,
            trust_remote_code=inputs.trust_remote_code,
        ).task
        for file in (inputs.train, inputs.eval):
            task.read(file, columns=inputs.columns)
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

    def _section(self, name: str) -> dict[str, Any]:
        section: dict[str, Any] = getattr(self.recipe, name)
        return section | self.inputs.overrides.get(name, {})

    def settings(self, config: Config) -> Mapping[str, Any]:
        """A part's configuration as inputs of the ledger; files count by their content."""
        paths = ("train", "eval", "teacher", "samples", "data")
        values = {name: getattr(config, name) for name in type(config).model_fields}
        solid = {k: Path(v) if k in paths and v else v for k, v in values.items()}
        return {k: v for k, v in solid.items() if k != "output"} | {"version": __version__}


def _distil(plan: _Plan, ledger: Ledger) -> dict[str, Any]:
    from distill import distil, is_distilled

    return ledger.part(
        "distill",
        plan.settings(plan.distill),
        lambda: distil(plan.distill).to_dict(),
        still_there=lambda: is_distilled(plan.student),
    )


def _convert(plan: _Plan, ledger: Ledger) -> None:
    from converters import convert

    settings = {**plan.settings(plan.convert), "source": ledger.mark("distill")}
    ledger.part(
        "convert",
        settings,
        lambda: convert(plan.convert).model_dump(mode="json"),
        still_there=lambda: is_bundle(plan.bundle),
    )


def _evaluate(plan: _Plan, ledger: Ledger, bundle: Bundle) -> list[Evaluation]:
    inputs = plan.inputs

    def work() -> dict[str, Any]:
        table = bundle_task(bundle).read(inputs.eval, columns=inputs.columns)
        found = evaluate(bundle, table, threads=plan.benchmark.threads[0])
        return {"artifacts": [row.model_dump(mode="json") for row in found]}

    settings = {"data": Path(inputs.eval), "bundle": ledger.mark("convert")}
    result = ledger.part("evaluate", settings, work)
    return [Evaluation.model_validate(row) for row in result["artifacts"]]


def _benchmark(plan: _Plan, ledger: Ledger) -> BenchmarkResult:
    from benchmark import BenchmarkResult

    settings = {
        **plan.settings(plan.benchmark),
        "bundles": ledger.mark("convert"),
        "baseline": plan.baseline,
    }
    result = ledger.part(
        "benchmark",
        settings,
        lambda: _measure(plan).model_dump(mode="json"),
    )
    return BenchmarkResult.model_validate(result)


def _measure(plan: _Plan) -> BenchmarkResult:
    from benchmark import benchmark

    maker = baseline_maker(plan.baseline, allow_pickle=plan.inputs.allow_pickle)
    found = benchmark(plan.benchmark, make_baseline=maker, journal=plan.journal, keep_journal=True)
    if found.failure is not None:
        raise MeasurementError(found.failure)
    return found


def _report(
    plan: _Plan,
    distillation: dict[str, Any],
    evaluations: Sequence[Evaluation],
    measured: BenchmarkResult,
) -> Report:
    """The report of a run: the rows of the benchmark with the accuracies of the evaluation."""
    from benchmark import Accuracy, Distillation, Report

    # A bundle may hold several artifacts of one precision, each for another target.
    found: dict[tuple[str, str, str | None], Evaluation] = {
        (row.format, row.precision, row.target): row for row in evaluations
    }

    def with_accuracy(row: Row) -> Row:
        held = found.get((row.model.format, row.model.precision, row.model.target))
        if row.role != "artifact" or held is None:
            return row
        accuracy = Accuracy(
            metric=held.metric,
            value=held.value,
            engine=held.engine,
            samples=held.samples,
            ref=distillation["value"],
        )
        return row.model_copy(update={"accuracy": accuracy})

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
    return report.model_copy(update={"rows": tuple(with_accuracy(row) for row in report.rows)})
