"""Bundled metrics, which score a generator."""
