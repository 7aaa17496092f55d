"""Who takes part in a stage beside the student and the teacher; recipes describe them as data."""

from distill.companions.config import Companion as CompanionConfig
from distill.companions.config import Peers

__all__ = ["CompanionConfig", "Peers"]
