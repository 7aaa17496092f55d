"""Who takes part in a stage beside the student and the teacher; recipes describe them as data."""
