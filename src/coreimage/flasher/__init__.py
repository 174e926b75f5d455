"""From a channel's image to a bootable A/B disk, without root, loop devices or mounts.

In: a channel on a server or in a tree. Out: one disk image file.
"""
