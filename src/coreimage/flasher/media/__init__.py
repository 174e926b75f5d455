"""What a finished raw disk becomes: a block map, another format, a compressed file, a card.

In: the raw disk image. Out: files beside each other, or a device that was read back.
"""
