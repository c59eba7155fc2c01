"""Metrics: each scores a generator and says by what protocol."""
