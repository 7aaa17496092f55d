"""What a model computes inside, captured so that it can be compared."""
