"""Tarballs: the tree, divided and compressed in one pass."""
