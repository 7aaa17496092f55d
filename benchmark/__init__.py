"""Measure what an artifact costs on a device, beside a baseline that everybody knows."""

from benchmark.budget import Budget, read_budget
from benchmark.comparing import RunComparison, compare_runs
from benchmark.config import PRESETS, Baseline, BenchmarkConfig, Protocol
from benchmark.journal import remove_journal
from benchmark.render import write_report
from benchmark.report import Distillation, Report
from benchmark.run import BaselineMaker, BenchmarkResult, benchmark
from benchmark.schema import Accuracy, Row
from benchmark.storing import read_any, read_rows, read_several

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
