"""Bundled penalties: terms added to a player's loss."""
