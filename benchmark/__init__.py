"""Measure what an artifact costs on a device, beside a baseline that everybody knows."""

from benchmark.config import PRESETS, Baseline, BenchmarkConfig, Protocol
from benchmark.plan import common_length, timed_formats
from benchmark.render import write_report
from benchmark.report import Distillation, Report
from benchmark.run import BenchmarkResult, benchmark
from benchmark.schema import Accuracy, Row

__all__ = [
    "PRESETS",
    "Accuracy",
    "Baseline",
    "BenchmarkConfig",
    "BenchmarkResult",
    "Distillation",
    "Protocol",
    "Report",
    "Row",
    "benchmark",
    "common_length",
    "timed_formats",
    "write_report",
]
