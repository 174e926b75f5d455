"""Inodes of an ext4 image: owners, modes, times and attributes that the staged files cannot have.

Passes of debugfs(8) over the plain file: no mount and no privilege.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from coreimage.errors import CoreImageError
from coreimage.flasher.disk.space import Space
from coreimage.flasher.tree.staging import Entry, Kind
from coreimage.lib import run

_ROOT = 2
_LOST_AND_FOUND_NAME = "lost+found"
_LOST_AND_FOUND = Entry(kind=Kind.DIRECTORY, mode=0o700)
_TYPE_BITS = {Kind.FILE: 0o100000, Kind.DIRECTORY: 0o040000, Kind.SYMLINK: 0o120000}
# A line of `ls -p`: /inode/mode/uid/gid/name/size/, the size of directories left out.
_LISTED = re.compile(rb"/(\d+)/(\d{6})/\d+/\d+/(.*)/\d*/\Z")
# What 34 bits of seconds, counted from the earliest 32-bit time, can hold.
_LATEST = (1 << 34) - (1 << 31) - 1


def finish_inodes(
    space: Space, entries: Mapping[str, Entry], *, time: int, scratch: Path, env: Mapping[str, str]
) -> None:
    """Give every inode of an ext4 image the attributes of its path in `entries`.

    Access, change and birth times become `time`, and so do modification times that are None.
    `env` is what makes the e2fsprogs reproducible. Raises CoreImageError when the image does not
    hold exactly these paths, or no room for their attributes.
    """
    inodes = _inodes_by_path(space, scratch=scratch, env=env)
    different = (entries.keys() ^ inodes.keys()) - {_LOST_AND_FOUND_NAME}
    if different:
        raise CoreImageError(
            f"the file system differs from the tree at '{min(different)}'",
            hint="report this as a bug, with the version of e2fsprogs",
        )
    by_inode = {inode: entries.get(path, _LOST_AND_FOUND) for path, inode in inodes.items()}
    commands = [*_attribute_commands(by_inode, scratch), *_field_commands(by_inode, time)]
    _debugfs(space, commands, scratch=scratch, env=env)


def _inodes_by_path(space: Space, *, scratch: Path, env: Mapping[str, str]) -> dict[str, int]:
    """Walk the directories level by level, by inode number, so that no path needs quoting."""
    inodes = {"": _ROOT}
    level = {_ROOT: ""}
    while level:
        commands = [f"ls -p <{inode}>" for inode in level]
        below: dict[int, str] = {}
        for parent, inode, mode, name in _children(
            _debugfs(space, commands, scratch=scratch, env=env)
        ):
            path = f"{level[parent]}/{name}".removeprefix("/")
            inodes[path] = inode
            if mode & 0o170000 == _TYPE_BITS[Kind.DIRECTORY]:
                below[inode] = path
        level = below
    return inodes


def _children(listing: bytes) -> Iterator[tuple[int, int, int, str]]:
    """Yield directory, inode, mode and name; each directory is listed with itself first."""
    directory = 0
    for line in listing.split(b"\n"):
        match = _LISTED.match(line)
        if match is None or match[1] == b"0":
            continue
        inode, mode, name = int(match[1]), int(match[2], 8), os.fsdecode(match[3])
        if name == ".":
            directory = inode
        elif name != "..":
            yield directory, inode, mode, name


def _attribute_commands(by_inode: Mapping[int, Entry], scratch: Path) -> Iterator[str]:
    """Yield the commands that set extended attributes; the values go into files."""
    for inode, entry in sorted(by_inode.items()):
        for number, (name, value) in enumerate(sorted(entry.xattrs.items())):
            file = f"xattr-{inode}-{number}"
            (scratch / file).write_bytes(value)
            yield f"ea_set -f {file} <{inode}> {name}"


def _field_commands(by_inode: Mapping[int, Entry], time: int) -> Iterator[str]:
    for inode, entry in sorted(by_inode.items()):
        fields = {
            "mode": f"0{_TYPE_BITS[entry.kind] | entry.mode:o}",
            "uid": str(entry.uid),
            "gid": str(entry.gid),
        }
        for name in ("atime", "ctime", "mtime", "crtime"):
            moment = entry.mtime if name == "mtime" and entry.mtime is not None else time
            fields[name], fields[f"{name}_extra"] = _timestamp(moment)
        yield from (f"sif <{inode}> {field} {value}" for field, value in fields.items())


def _timestamp(seconds: int) -> tuple[str, str]:
    """Return the two 32-bit words of a time in whole seconds, as debugfs reads them.

    The low two bits of the second word count how often the signed first one has wrapped. Source:
    "Inode Timestamps" of the kernel's ext4 documentation.
    """
    seconds = min(max(seconds, 0), _LATEST)
    return f"@{seconds & 0xFFFFFFFF}", str((seconds + (1 << 31)) >> 32)


def _debugfs(
    space: Space, commands: Iterable[str], *, scratch: Path, env: Mapping[str, str]
) -> bytes:
    """Run commands on an image and return what they print, errors apart.

    debugfs goes on after a command that failed and says so on stderr only.
    """
    script = "".join(f"{command}\n" for command in commands).encode()
    argv = ["debugfs", "-w", "-f", "-", space.for_e2fsprogs]
    done = run.run(argv, data=script, cwd=scratch, env=env)
    said = done.stderr.decode(errors="replace").splitlines()
    complaints = [line for line in said if line and not line.startswith("debugfs 1.")]
    if complaints:
        raise CoreImageError(f"debugfs could not finish the file system: {complaints[0]}")
    return done.stdout
