"""From rows to reports and comparisons."""
