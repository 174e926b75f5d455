"""The channel tree: where what lies, and changing it in transactions.

Written are states, indexes, version files and the pool; everything else of the server goes through
here.
"""
