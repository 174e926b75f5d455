"""Root filesystems: a definition and an archive become rootfs and device tarballs.

In: a definition, a release, an architecture. Out: livecd.* artifacts in one directory.
"""
