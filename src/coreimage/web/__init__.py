"""HTTP: the channel tree at the root of a host, publications below /cdimage/, builds at /builds/.

In: a workspace. Out: responses; nothing is written but what an operator asks of a build.
"""
