"""Generators: where each file of an image comes from."""
