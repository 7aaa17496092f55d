"""Reports and comparisons of rows."""
