"""The trainer, what it trains, and what it saves."""
