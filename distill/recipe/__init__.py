"""The words of a recipe: terms, companions, stages and the student, as data."""
