"""Effects, one door each: processes, files, archives, downloads, signatures.

Standard library only, because the updater on the device uses them too.
"""
