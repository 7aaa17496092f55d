"""Training texts besides the labelled ones: rewritten, or read from files without labels."""

from distill.augment.config import Augmentation
from distill.augment.making import augment, check_task
from distill.augment.mixing import encode_rows, mix, targets_of

__all__ = [
    "Augmentation",
    "augment",
    "check_task",
    "encode_rows",
    "mix",
    "targets_of",
]
