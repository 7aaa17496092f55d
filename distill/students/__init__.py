"""What is trained: students made of a teacher, of another architecture, or of files."""

from distill.students.base import EMBEDS, TASK, TASKS, Student, Teacher
from distill.students.build import build_student

__all__ = ["EMBEDS", "TASK", "TASKS", "Student", "Teacher", "build_student"]
