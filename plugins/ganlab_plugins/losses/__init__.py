"""Bundled adversarial losses, computed from logits."""
