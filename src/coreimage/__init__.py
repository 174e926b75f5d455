"""coreimage: from packages to a booted, self-updating A/B disk.

In: packages of a Debian or Ubuntu archive. Out: root filesystems, signed publications,
signed channels of images, bootable disks. Everything is written below a workspace.
"""
