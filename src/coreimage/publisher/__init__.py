"""The publication tree: dated directories of finished builds, with signed checksums.

In: builds of one build id. Out: www/cdimage/<project>/<series>/daily-preinstalled/<build id>/.
"""
