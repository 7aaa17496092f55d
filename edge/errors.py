"""The tree of all errors that a user can meet.

EdgeError                    a failure                                   exit 1
├── ConversionError          a checkpoint could not be converted
├── VerificationError        an artifact ran and disagrees with its checkpoint
├── EngineError              an engine is missing, or failed while running
├── MeasurementError         a benchmark could not be completed
├── TrainingError            training stopped
├── StorageError             the disk is full or not writable
└── UserError                the command asked for something impossible  exit 2
    ├── ConfigError          unknown name, unknown key, impossible combination
    ├── DataError            a data file that is missing, empty or of the wrong shape
    ├── CheckpointError      a checkpoint that cannot be used
    └── BundleError          a bundle that is missing, altered or not a bundle

A message is one line: what is wrong, then what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgeError(Exception):
    """Root of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class ConversionError(EdgeError):
    """A checkpoint could not be converted to a format."""


class VerificationError(EdgeError):
    """An artifact was executed and its outputs disagree with the checkpoint's."""


class EngineError(EdgeError):
    """An engine is missing here, or failed while it loaded or ran an artifact."""


class MeasurementError(EdgeError):
    """A benchmark could not be completed."""


class TrainingError(EdgeError):
    """Training stopped before its end."""


class StorageError(EdgeError):
    """A result could not be written."""


class UserError(EdgeError):
    """The request itself cannot be met; nothing was changed."""

    exit_code = 2


class ConfigError(UserError):
    """An unknown name or key, or a combination that cannot work."""


class DataError(UserError):
    """A data file is missing, empty, or not of the expected shape."""


class CheckpointError(UserError):
    """A checkpoint cannot be used."""


class BundleError(UserError):
    """A bundle is missing, was altered, or is not a bundle."""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice most similar to `name`, or None when none is close."""
    matches = difflib.get_close_matches(name.lower(), list(choices), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> ConfigError:
    """Return the error for a name that is not in `choices`, suggesting the nearest choice."""
    options = sorted(choices)
    guess = nearest(name, options)
    hint = f"did you mean '{guess}'? " if guess else ""
    return ConfigError(f"unknown {kind} '{name}': {hint}choose from {', '.join(options)}")
