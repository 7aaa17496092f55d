"""Measure what an artifact costs on a device, beside a baseline that everybody knows."""

from benchmark.budget import Budget, read_budget
from benchmark.config import PRESETS, Baseline, BenchmarkConfig, Protocol
from benchmark.render import write_report
from benchmark.report import Distillation, Report
from benchmark.run import BaselineMaker, BenchmarkResult, benchmark
from benchmark.schema import Accuracy, Row
from benchmark.storing import read_rows

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
    "benchmark",
    "read_budget",
    "read_rows",
    "write_report",
]
