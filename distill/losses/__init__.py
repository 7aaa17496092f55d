"""Loss functions: pure functions of tensors, one formula each."""
