"""What is measured, in which order, and the rows that come of it."""
