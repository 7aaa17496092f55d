"""From texts and labels to batches."""
