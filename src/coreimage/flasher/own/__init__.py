"""What a machine has of its own: packages, a user, a name, networks, credentials.

In: files that a person gives. Out: files on the partition `writable`, which images never touch.
"""
