"""The whole way: distil, convert, verify, evaluate, benchmark, report."""
