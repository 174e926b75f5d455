"""Imports: from what a channel is fed from to its next image and the deltas to it."""
