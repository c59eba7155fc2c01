"""Loss wrappers."""
