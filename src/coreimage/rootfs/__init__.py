"""Root filesystems: a definition and an archive become rootfs and device tarballs.

In: a definition, a release, an architecture. Out: livecd.* artifacts in one directory. The road
leads from `definitions` by `archives`, `packages` and `tree` to `tarballs`; `build` goes along it.
"""
