"""A browser that opens the benchmark page, on this machine or on a phone."""
