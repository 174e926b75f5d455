"""From file trees to a disk: partition tables, boot loaders, file systems, and one sparse file.

In: staged trees and a plan of the disk. Out: the raw disk image.
"""
