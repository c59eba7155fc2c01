"""Bundled augmentations of the discriminator's input."""
