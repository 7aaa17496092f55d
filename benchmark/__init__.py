"""Measure latency, memory and size of artifacts on a device, beside a well-known baseline."""

from benchmark.config import PRESETS, Baseline, BenchmarkConfig, Protocol
from benchmark.measure.journal import remove_journal
from benchmark.report.budget import Budget, read_budget
from benchmark.report.compare import RunComparison, compare_runs
from benchmark.report.model import Distillation, Report
from benchmark.report.render import write_report
from benchmark.row_files import read_any, read_rows, read_several
from benchmark.run import BaselineMaker, BenchmarkResult, benchmark
from benchmark.schema import Accuracy, Row

__all__ = [
    "PRESETS",
    "Accuracy",
    "Baseline",
    "BaselineMaker",
    "BenchmarkConfig",
    "BenchmarkResult",
    "Budget",
    "Distillation",
    "Protocol",
    "Report",
    "Row",
    "RunComparison",
    "benchmark",
    "compare_runs",
    "read_any",
    "read_budget",
    "read_rows",
    "read_several",
    "remove_journal",
    "write_report",
]
