"""The full pipeline: distill, convert, verify, evaluate, benchmark, report."""
