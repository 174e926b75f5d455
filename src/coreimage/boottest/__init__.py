"""QEMU: run a disk, wait for what the system reports, judge it.

In: a disk image. Out: a report and the console log.
"""
