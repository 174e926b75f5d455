"""Deltas: what changes between two images, in the format of the original server.

In: the tarballs of two images. Out: for each of them a tarball with `removed`, the list of paths
that go, and the members that come; or the reason why there can be none.
"""
