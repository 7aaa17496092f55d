"""The terms of a stage as modules: what each compares, and the projections it learns with."""

from distill.objectives.base import Batch, Objective, Setting, Shape, Totals
from distill.objectives.learner import OBJECTIVES, Learner

__all__ = ["OBJECTIVES", "Batch", "Learner", "Objective", "Setting", "Shape", "Totals"]
