"""Disks of tests: large files that are mostly holes."""

import hashlib
import os
from pathlib import Path


def digest(path: Path) -> str:
    """Hash length and all blocks that are not zero, with their places; holes are not read."""
    total = hashlib.sha256(str(path.stat().st_size).encode())
    with path.open("rb") as file:
        position = 0
        while True:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA) // 4096 * 4096
            except OSError:  # no data behind here
                return total.hexdigest()
            block = os.pread(file.fileno(), 4096, position)
            if block.strip(b"\0"):
                total.update(position.to_bytes(8, "big") + block)
            position += 4096
