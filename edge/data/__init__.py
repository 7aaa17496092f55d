"""Data files: TSV, CSV, JSON, Parquet, CoNLL, text lines, a `datasets` folder or name."""

from __future__ import annotations

from edge.data.hub import open_dataset
from edge.data.read import read_table
from edge.data.table import TEXTS, Columns, Layout, Table
from edge.data.values import TargetColumn

__all__ = ["TEXTS", "Columns", "Layout", "Table", "TargetColumn", "open_dataset", "read_table"]
