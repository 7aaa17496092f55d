"""The terms of a stage as modules: what each compares, and the projections it learns with."""

from distill.objectives.base import Batch, Objective, Totals
from distill.signals.shapes import Setting, Shape
from distill.training.learner import OBJECTIVES, Learner, Read

__all__ = ["OBJECTIVES", "Batch", "Learner", "Objective", "Read", "Setting", "Shape", "Totals"]
