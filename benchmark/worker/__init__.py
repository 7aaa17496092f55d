"""The process that runs one model, here or on a device."""
