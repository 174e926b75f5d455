"""The system-image server: keys, channels, pool and images.

In: publications. Out: www/system-image/, a static tree that system-image clients accept.
"""
