"""From an image's tarballs to file trees that an ordinary user can hold.

In: verified tarballs. Out: a staged tree with owners and modes beside it.
"""
