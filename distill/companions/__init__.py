"""Who takes part in a stage beside the student and the teacher; recipes describe them as data."""

from distill.recipe.companions import Brought, Ensemble, Peers
from distill.recipe.companions import Companion as CompanionConfig

__all__ = ["Brought", "CompanionConfig", "Ensemble", "Peers"]
