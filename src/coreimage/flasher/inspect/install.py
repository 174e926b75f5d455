"""Reading back what a disk was made of: install.yaml on its system-boot partition."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coreimage.errors import CommandError
from coreimage.lib import run

_SECTOR = 512
_NAME = "system-boot".encode("utf-16-le")
# Where a partition entry has its first sector and its name. Source: UEFI 2.10, table 5.7.
_FIRST_SECTOR, _NAME_AT = 32, 56


def read_install(disk: Path) -> Mapping[str, Any] | None:
    """Return the fields of install.yaml of a disk that we made, or None for any other file."""
    start = _system_boot(disk)
    if start is None:
        return None
    try:
        text = run.run(["mtype", "-i", f"{disk}@@{start}", "::/install.yaml"]).stdout.decode()
        lines = (line.partition(": ") for line in text.splitlines())
        fields = {key: json.loads(value) for key, _, value in lines}
    except (CommandError, UnicodeDecodeError, ValueError):
        return None
    return fields if fields.get("tool") == "coreimage" else None


def _system_boot(disk: Path) -> int | None:
    """Return where the partition system-boot begins, in bytes."""
    with disk.open("rb") as file:
        file.seek(2 * _SECTOR)
        table = file.read(128 * 128)
    for offset in range(0, len(table), 128):
        entry = table[offset : offset + 128]
        if entry[_NAME_AT:].rstrip(b"\0") == _NAME.rstrip(b"\0"):
            return int(struct.unpack_from("<Q", entry, _FIRST_SECTOR)[0]) * _SECTOR
    return None
