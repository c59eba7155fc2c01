"""Bundled feature extractors: uint8 images to vectors that a metric compares."""
