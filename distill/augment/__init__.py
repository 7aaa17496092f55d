"""Training texts besides the labelled ones: rewritten, or read from files without labels."""

from distill.augment.making import augment, check_task
from distill.augment.mixing import encode_rows, mix, targets_of
from distill.recipe.augmentations import Augmentation

__all__ = [
    "Augmentation",
    "augment",
    "check_task",
    "encode_rows",
    "mix",
    "targets_of",
]
