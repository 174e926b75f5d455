"""Where images come from: a server or a folder, verified, and its files while they are brought.

In: URLs or paths of channel trees, and the pinned keyring. Out: indexes, and open, verified files.
"""
