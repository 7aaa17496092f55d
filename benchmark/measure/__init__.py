"""The plan of a comparison, its measurement, and its rows."""
