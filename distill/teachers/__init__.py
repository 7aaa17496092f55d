"""Teachers whose signals come from disk."""

from distill.teachers.cache import CachedTeacher, cached_teacher
from distill.teachers.folder import Identity, identify

__all__ = ["CachedTeacher", "Identity", "cached_teacher", "identify"]
