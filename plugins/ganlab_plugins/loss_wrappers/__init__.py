"""Bundled loss wrappers."""
