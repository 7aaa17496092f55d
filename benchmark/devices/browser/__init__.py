"""A browser, on this machine or on a phone that opens the page."""
