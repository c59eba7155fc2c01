"""Penalties on the networks."""
