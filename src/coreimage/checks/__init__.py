"""Checks: whether this machine has what the road from packages to a booted disk needs.

In: the machine, and where the workspace lies. Out: a list of checks. Nothing is changed.
"""
