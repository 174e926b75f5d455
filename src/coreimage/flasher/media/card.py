"""Cards: which device may be written over, and writing one with everything read back.

What is known of a device comes from sysfs and /proc; whether that will do is decided on it alone.
"""

import fcntl
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import BusyError, CommandError, DataError, NotFoundError, RightsError
from coreimage.flasher.media.bmap import read_range
from coreimage.flasher.media.ranges import Range
from coreimage.lib.progress import Progress, Task

_SECTOR = 512
# Of <linux/fs.h>: forget what was read, so that the next read comes from the device.
_BLKFLSBUF = 0x1261


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What is known of a device; `size` is in bytes.

    `mounts` are the places where it or a part of it is mounted, `holders` whatever else uses it:
    swap, a RAID, an encrypted volume. `whole` is the disk that a partition is on.
    """

    path: Path
    size: int
    model: str = ""
    removable: bool = False
    read_only: bool = False
    whole: str = ""
    mounts: Sequence[str] = ()
    holders: Sequence[str] = ()


def read_facts(
    device: Path, *, sys: Path = Path("/sys"), proc: Path = Path("/proc")
) -> DeviceFacts:
    """Return what the kernel says of a block device; raises NotFoundError, DataError."""
    try:
        state = device.stat()
    except FileNotFoundError:
        raise NotFoundError(f"there is no device '{device}'") from None
    if not stat.S_ISBLK(state.st_mode):
        raise DataError(
            f"'{device}' is not a block device", hint="make a file with --output instead"
        )
    number = f"{os.major(state.st_rdev)}:{os.minor(state.st_rdev)}"
    return facts_of(device, (sys / f"dev/block/{number}").resolve(), proc=proc)


def facts_of(device: Path, home: Path, *, proc: Path) -> DeviceFacts:
    """Return the facts of the device whose folder in sysfs is `home`."""
    partition = (home / "partition").exists()
    parts = [home, *sorted(path.parent for path in home.glob("*/partition"))]
    numbers = {_text(part / "dev") for part in parts}
    names = {part.name for part in parts}
    holders = [held.name for part in parts for held in sorted((part / "holders").glob("*"))]
    holders += [f"swap on {name}" for name in _swaps(proc) if Path(name).name in names]
    return DeviceFacts(
        path=device,
        size=int(_text(home / "size") or 0) * _SECTOR,
        model=" ".join(filter(None, (_text(home / "device/vendor"), _text(home / "device/model")))),
        removable=_is_removable(home),
        read_only=_text(home / "ro") == "1",
        whole=home.parent.name if partition else "",
        mounts=tuple(place for found, place in _mounts(proc) if found in numbers),
        holders=tuple(holders),
    )


def _is_removable(home: Path) -> bool:
    """Tell whether it can be taken out: it says so, or it is on USB, or it is an SD card."""
    return (
        _text(home / "removable") == "1"
        or any(part.startswith("usb") for part in home.parts)
        or _text(home / "device/type") == "SD"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _mounts(proc: Path) -> list[tuple[str, str]]:
    """Return device numbers and places. Source: proc(5), /proc/[pid]/mountinfo."""
    fields = [line.split() for line in _text(proc / "self/mountinfo").splitlines()]
    return [(line[2], line[4]) for line in fields if len(line) > 4]  # noqa: PLR2004


def _swaps(proc: Path) -> list[str]:
    return [line.split()[0] for line in _text(proc / "swaps").splitlines()[1:] if line.strip()]


def check_device(facts: DeviceFacts, *, needed: int, accepted: bool) -> None:
    """Raise an error unless a device may be written over; `needed` is in bytes.

    `accepted` is what --yes-i-know says: then it may be a fixed disk, or mounted somewhere. What
    the running system stands on is refused all the same.
    """
    if facts.whole:
        raise DataError(
            f"'{facts.path}' is a partition", hint=f"name the whole disk: '/dev/{facts.whole}'"
        )
    if facts.read_only:
        raise RightsError(f"'{facts.path}' is read-only", hint="see its switch, if it has one")
    if facts.size < needed:
        raise DataError(
            f"'{facts.path}' has {facts.size} bytes, {needed} are needed",
            hint="take a larger one, or give --size",
        )
    if "/" in facts.mounts or facts.holders:
        used = ", ".join(("the running system",) if "/" in facts.mounts else facts.holders)
        raise BusyError(f"'{facts.path}' is in use: {used}", hint="name another device")
    if facts.mounts and not accepted:
        raise BusyError(
            f"'{facts.path}' is mounted at {', '.join(facts.mounts)}",
            hint="unmount it, or say --yes-i-know",
        )
    if not facts.removable and not accepted:
        raise RightsError(
            f"'{facts.path}' ({facts.model or 'no model'}, {facts.size / 1e9:.1f} GB) is not "
            "removable",
            hint="if it is the right one, say --yes-i-know",
        )


def write_card(
    disk: Path, device: Path, ranges: Sequence[Range], *, exclusive: bool, progress: Progress
) -> None:
    """Write ranges of a raw disk to a device, then read them back and compare.

    `exclusive` refuses a device that somebody uses. Raises CommandError that names the first place
    that differs.
    """
    total = sum(each.end - each.start for each in ranges)
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if exclusive else 0)
    try:
        target = os.open(device, flags)
    except OSError as error:
        raise BusyError(f"'{device}' cannot be opened: {error.strerror}") from error
    try:
        with disk.open("rb") as source:
            with progress.task(f"writing {device}", total) as task:
                digests = [_write_range(source.fileno(), target, each, task) for each in ranges]
                os.fsync(target)
            _forget(target)
            with progress.task(f"reading {device} back", total) as task:
                for each, digest in zip(ranges, digests, strict=True):
                    _compare(target, each, digest, device, task)
    finally:
        os.close(target)


def _write_range(source: int, target: int, wanted: Range, task: Task) -> bytes:
    digest, position = hashlib.sha256(), wanted.start
    for chunk in read_range(source, wanted):
        digest.update(chunk)
        left = memoryview(chunk)
        while left:
            written = os.pwrite(target, left, position)
            left, position = left[written:], position + written
        task.advance(len(chunk))
    return digest.digest()


def _forget(descriptor: int) -> None:
    """Make the kernel read from the device again; a plain file has only the advice."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        fcntl.ioctl(descriptor, _BLKFLSBUF)


def _compare(target: int, wanted: Range, expected: bytes, device: Path, task: Task) -> None:
    digest = hashlib.sha256()
    for chunk in read_range(target, wanted):
        digest.update(chunk)
        task.advance(len(chunk))
    if digest.digest() != expected:
        raise CommandError(
            f"'{device}' does not hold what was written, in bytes {wanted.start} to {wanted.end}",
            hint="the card is worn out, or smaller than it says: take another one",
        )
