"""The terms of a stage as modules: what each compares, and the projections it learns with."""

from distill.objectives.base import Batch, Objective, Totals
from distill.objectives.learner import OBJECTIVES, Learner, Read
from distill.setting import Setting, Shape

__all__ = ["OBJECTIVES", "Batch", "Learner", "Objective", "Read", "Setting", "Shape", "Totals"]
