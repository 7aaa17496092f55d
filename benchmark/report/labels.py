"""Labels of a report's rows, which name only the properties that differ between the rows."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.keys import bundle_of, setting_of
from benchmark.schema import Row
from benchmark.titles import baseline_title, engine_title, format_title


def device_of(row: Row) -> str:
    """Return the device's name, with its kind if it is not real."""
    device = row.device
    name = device.model or device.soc or device.address or "unknown device"
    return name if device.kind == "real" else f"{name} ({device.kind})"


def length_words(length: int | None) -> str:
    """Return a length in words: "128 tokens"."""
    return "an unknown length" if length is None else f"{length} tokens"


class Labels:
    """Names for the rows of one report."""

    def __init__(self, rows: Sequence[Row]) -> None:
        artifacts = [row for row in rows if row.role == "artifact"]
        self._bundles = len({bundle_of(row) for row in artifacts}) > 1
        variants = {(bundle_of(row), row.model.format, row.model.precision) for row in artifacts}
        targeted_variants = {
            (bundle_of(row), row.model.format, row.model.precision, row.model.target)
            for row in artifacts
        }
        self._targets = len(targeted_variants) > len(variants)
        measured = [row for row in rows if row.role != "imported"] or rows
        threads, lengths, batches, paddings = (
            {setting[place] for setting in map(setting_of, measured)} for place in range(4)
        )
        self._threads, self._lengths = len(threads) > 1, len(lengths) > 1
        self._batches, self._paddings = len(batches) > 1, len(paddings) > 1
        self._devices = len({device_of(row) for row in measured}) > 1

    def name(self, row: Row) -> str:
        """Return "TFLite int8", with the bundle's name in front if there are several bundles."""
        if row.role == "imported":
            return row.model.id
        if row.role == "baseline":
            return f"{baseline_title(row.model.id)} {row.model.precision}"
        name = f"{format_title(row.model.format)} {row.model.precision}"
        if self._targets and row.model.target:
            name += f" for {row.model.target}"
        return f"{bundle_of(row)} {name}" if self._bundles else name

    def setting(self, row: Row) -> str:
        """Return the settings that differ between rows: "64 tokens, 2 threads"; may be empty."""
        threads, length, batch, padding = setting_of(row)
        parts = []
        if self._lengths and length is not None:
            parts.append(f"{length} tokens")
        if self._threads and threads is not None:
            parts.append(f"{threads} thread{'s' * (threads > 1)}")
        if self._batches:
            parts.append(f"batch {batch}")
        if self._paddings:
            parts.append("own lengths" if padding == "shortest" else "padded")
        return ", ".join(parts)

    def place(self, row: Row) -> str:
        """Return setting and device, as far as they differ: "64 tokens, 2 threads, on Board"."""
        parts = [self.setting(row), f"on {device_of(row)}" if self._devices else ""]
        return ", ".join(part for part in parts if part)

    def engine(self, row: Row) -> str:
        """Return the engine's name; of an imported row also length, device and tool."""
        name = engine_title(row.runtime.name)
        if row.role != "imported":
            return name
        length = row.inputs.seq_len
        parts = [
            name if name != "unknown" else "",
            f"{length} tokens" if length else "",
            row.device.model or "",
            f"imported from {row.tool.name}",
        ]
        return ", ".join(part for part in parts if part)

    def full(self, row: Row) -> str:
        """Return model, engine, setting and device: "TFLite int8 in LiteRT, 64 tokens"."""
        if row.role == "imported":
            return f"{self.name(row)} ({self.engine(row)})"
        parts = [f"{self.name(row)} in {engine_title(row.runtime.name)}", self.setting(row)]
        if self._devices:
            parts.append(device_of(row))
        return ", ".join(part for part in parts if part)

    def model(self, row: Row) -> str:
        """Return model and engine: "TFLite int8 in LiteRT"."""
        return f"{self.name(row)} in {engine_title(row.runtime.name)}"
