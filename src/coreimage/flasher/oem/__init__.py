"""OEM packages: what a maker says about a board, and the files that go with it.

In: a folder, an archive of it, or a name in a store. Out: a checked package, or its archive.
"""
