"""What is trained: students made of a teacher, of another architecture, or of files."""

from distill.students.base import Student, Teacher
from distill.students.build import build_student

__all__ = ["Student", "Teacher", "build_student"]
