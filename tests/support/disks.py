"""Disks of tests: large files that are mostly holes."""

import hashlib
import json
import os
from pathlib import Path

from coreimage.lib import run


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


def place_of(disk: Path, partition: str) -> tuple[int, int]:
    """Return where a partition begins and how large it is, in bytes, as sfdisk reads the table."""
    table = json.loads(run.run(["sfdisk", "--json", disk]).stdout)["partitiontable"]
    found = next(each for each in table["partitions"] if each.get("name") == partition)
    return found["start"] * table["sectorsize"], found["size"] * table["sectorsize"]


def content_of(disk: Path, partition: str, path: str) -> bytes:
    """Return a file of an ext4 partition, as debugfs reads it."""
    start, _ = place_of(disk, partition)
    return run.run(["debugfs", "-R", f"cat {path}", f"{disk}?offset={start}"]).stdout
