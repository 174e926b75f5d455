"""HTTP: the channel tree at the root of a host, the publication tree below /cdimage/.

In: a workspace. Out: responses; nothing is written.
"""
