"""Definitions: what an image is made of, as people write it."""
