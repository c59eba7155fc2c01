"""Bundled generators and discriminators."""
