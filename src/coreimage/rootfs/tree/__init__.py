"""The tree: programs that run in it, and what is laid over it."""
