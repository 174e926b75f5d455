"""What is on a disk: layout, slots and their versions, what starts next, who may log in."""

import configparser
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import DataError
from coreimage.flasher.disk.grub import GRUB_DIRECTORY
from coreimage.flasher.disk.layout import Layout
from coreimage.flasher.inspect.install import install_of, read_boot_file, read_file
from coreimage.flasher.inspect.table import read_layout
from coreimage.flasher.provision import HOME, PublicKey, parse_keys
from coreimage.flasher.record import Record
from coreimage.lib import run

_STATE = re.compile(r"^(snappy_(?:ab|mode|trial_boot))=(\S*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFacts:
    """What a slot says of itself; all is empty where there is no system."""

    version: str = ""
    channel: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """A disk as it is; `boot` are the variables of the boot loader, `keys` are by their user."""

    layout: Layout
    install: Record | None
    slots: Mapping[str, SlotFacts]
    boot: Mapping[str, str]
    ssh: bool
    developer_mode: bool
    keys: Mapping[str, Sequence[PublicKey]]


def look(disk: Path) -> DiskFacts:
    """Read a raw disk; raises DataError when it has no partition table."""
    layout = read_layout(disk)
    home = _listing(disk, layout, HOME)
    return DiskFacts(
        layout=layout,
        install=install_of(disk, layout),
        slots={slot: _slot(disk, layout, slot) for slot in "ab"},
        boot=_boot_state(disk, layout),
        ssh="enabled" in _listing(disk, layout, f"{HOME}/ssh"),
        developer_mode="developer-mode" in home,
        keys=_keys(disk, layout),
    )


def _slot(disk: Path, layout: Layout, slot: str) -> SlotFacts:
    partition = f"system-{slot}"
    version = read_file(disk, layout, partition, "etc/ubuntu-build").decode(errors="replace")
    text = read_file(disk, layout, partition, "etc/system-image/channel.ini")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text.decode(errors="replace"))
    except configparser.Error:
        parser.clear()
    return SlotFacts(
        version=version.strip(),
        channel=parser.get("service", "channel", fallback=""),
        device=parser.get("service", "device", fallback=""),
    )


def _boot_state(disk: Path, layout: Layout) -> dict[str, str]:
    texts = (
        read_boot_file(disk, layout, path)
        for path in (f"{GRUB_DIRECTORY}/grubenv", "snappy-system.txt")
    )
    return {
        name: value
        for text in texts
        for name, value in _STATE.findall(text.decode(errors="replace"))
    }


def _listing(disk: Path, layout: Layout, folder: str) -> set[str]:
    if not layout.has("writable"):
        return set()
    image = f"{disk}?offset={layout.partition('writable').start}"
    listed = run.run(["debugfs", "-R", f'ls -p "/{folder}"', image], check=False).stdout
    lines = (line.split(b"/") for line in listed.splitlines() if line.startswith(b"/"))
    return {line[5].decode(errors="replace") for line in lines if len(line) > 5}  # noqa: PLR2004


def _keys(disk: Path, layout: Layout) -> dict[str, list[PublicKey]]:
    folder = f"{HOME}/ssh/authorized_keys"
    users = sorted(_listing(disk, layout, folder) - {".", ".."})
    return {user: _keys_of(disk, layout, f"{folder}/{user}") for user in users}


def _keys_of(disk: Path, layout: Layout, path: str) -> list[PublicKey]:
    text = read_file(disk, layout, "writable", path).decode(errors="replace")
    try:
        return parse_keys(text, source=path) if text.strip() else []
    except DataError:
        return []
