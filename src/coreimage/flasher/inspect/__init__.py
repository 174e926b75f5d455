"""Looking at a finished disk: what is on it, and whether that is what flashing gives.

In: a disk image or device. Out: facts; nothing is written.
"""
