"""What the files of an image become: the tree of a system slot, and what starts it."""

import os
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import DataError, NotFoundError
from coreimage.flasher.disk.loader import slot_directory
from coreimage.flasher.oem.package import OemPackage
from coreimage.flasher.remote.source import Payload
from coreimage.flasher.tree.arch import check_arch
from coreimage.flasher.tree.staging import Kind, Staging
from coreimage.flasher.tree.unpack import Route, unpack
from coreimage.lib import compress, tar
from coreimage.lib.files import Reader
from coreimage.lib.progress import Progress, Task
from coreimage.model.hardware import Hardware

_CHANNEL_INI = "system/etc/system-image/channel.ini"
_MAX_INI = 64 << 10
_IMAGE_NAMES = frozenset({"system", "assets", "hardware.yaml"})
# The first day of 1980: FAT knows none before.
_EARLIEST = 315532800


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPart:
    """What the version tarball says: the text of channel.ini, and its time in UNIX seconds."""

    channel_ini: str
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The tree of a slot and the files that start it."""

    system: Staging
    boot: Staging
    hardware: Hardware

    def check(self, oem: OemPackage) -> None:
        """Raise DataError unless image and OEM package are for the same kind of machine."""
        wanted = oem.info.oem.hardware
        for key, image, package in (
            ("bootloader", self.hardware.bootloader, wanted.bootloader),
            ("partition-layout", self.hardware.partition_layout, wanted.partition_layout),
        ):
            if image != package:
                raise DataError(
                    f"the image wants {key} '{image}', OEM package '{oem.info.name}' '{package}'"
                )
        check_arch(
            wanted.architecture,
            system=self.system,
            boot=self.boot,
            kernel=self.hardware.kernel,
            oem=oem.info.name,
        )

    def boot_files(self) -> dict[str, bytes | Path]:
        """Return the files of slot a on the boot partition; raises DataError for missing ones."""
        directory = slot_directory(self.hardware.bootloader, "a")
        names = {
            "vmlinuz": self.hardware.kernel,
            "initrd.img": self.hardware.initrd,
            "hardware.yaml": "hardware.yaml",
        }
        names.update(self._device_trees())
        try:
            return {f"{directory}/{name}": self.boot.file(path) for name, path in names.items()}
        except NotFoundError as error:
            raise DataError(f"hardware.yaml of the image names a file: {error.message}") from error

    def _device_trees(self) -> dict[str, str]:
        """Return the image's device trees: their names below the slot, and where they are now."""
        home = f"{self.hardware.dtbs.strip('/')}/"
        return {
            f"dtbs/{path.removeprefix(home)}": path
            for path, entry in self.boot.entries.items()
            if self.hardware.dtbs and path.startswith(home) and entry.kind is Kind.FILE
        }


def read_version(payload: Payload) -> VersionPart:
    """Read the version tarball, the last file of every image; raises DataError when it is not."""
    text, time = None, _EARLIEST
    with (
        compress.decompressing(payload.file, name=payload.name) as stream,
        tar.reading(stream, archive=payload.name) as archive,
    ):
        for member in tar.members(archive, archive=payload.name):
            time = max(time, int(member.mtime))
            content = archive.extractfile(member) if member.name == _CHANNEL_INI else None
            if content is not None:
                text = content.read(_MAX_INI).decode(errors="replace")
    if text is None:
        raise DataError(
            f"'{payload.name}' has no {_CHANNEL_INI}: the image does not say what it is for"
        )
    return VersionPart(channel_ini=text, time=time)


def unpack_image(
    payloads: Iterable[Payload],
    *,
    total: int,
    scratch: Path,
    progress: Progress,
    plain: Container[str] = (),
) -> Slot:
    """Apply verified files in their order, `total` bytes of them; each as soon as it is there.

    Raises DataError for what has no place in an image. `plain` has the paths of files that are root
    file systems as builds have them, with nothing moved below `system`; what an image adds to them
    is added.
    """
    system, boot = Staging(scratch / "system"), Staging(scratch / "boot")
    routes = {
        "system": Route(staging=system),
        "assets": Route(staging=boot, keep_name=True),
        "hardware.yaml": Route(staging=boot, keep_name=True),
    }
    with progress.task("unpacking", total) as task:
        for payload in payloads:
            whole = payload.entry.path in plain and not _is_image_file(payload)
            with compress.decompressing(payload.file, name=payload.name) as stream:
                reader = _Following(stream, payload, task)
                if whole:
                    everything = Route(staging=system, keep_name=True)
                    unpack(reader, archive=payload.name, routes={}, default=everything)
                else:
                    unpack(reader, archive=payload.name, routes=routes)
                reader.finish()
            if whole:
                _complete(system)
    try:
        text = boot.file("hardware.yaml").read_text(errors="replace")
    except NotFoundError as error:
        raise DataError("the image has no hardware.yaml: it cannot be started") from error
    return Slot(system=system, boot=boot, hardware=Hardware.from_yaml(text))


def _is_image_file(payload: Payload) -> bool:
    """Tell whether a tarball is one of an image already, with everything below `system`."""
    with (
        compress.decompressing(payload.file, name=payload.name) as stream,
        tar.reading(stream, archive=payload.name) as archive,
    ):
        for member in tar.members(archive, archive=payload.name):
            if member.name:
                return member.name.partition("/")[0] in _IMAGE_NAMES
    return False


def _complete(system: Staging) -> None:
    """Add what the server adds when it makes an image of a root file system, and leave out too."""
    for path in [path for path in system.entries if path.startswith("dev/")]:
        system.remove(path)
    system.remove("SWAP.swap")
    newest = max((entry.mtime or 0 for entry in system.entries.values()), default=0)
    for path in ("writable", "lib/modules"):
        if not system.has(path):
            system.put_directory(path, mtime=newest)
    system.put_symlink("etc/mtab", "/proc/mounts", mtime=newest)


def newest_time(system: Staging) -> int:
    """Return the time of the newest file, in UNIX seconds, as the time of an image."""
    return max(_EARLIEST, *(entry.mtime or 0 for entry in system.entries.values()))


class _Following:
    """Passes bytes through; the task advances with the compressed file that they come from."""

    def __init__(self, stream: Reader, payload: Payload, task: Task) -> None:
        self._stream = stream
        self._payload = payload
        self._task = task
        self._shown = 0

    def read(self, size: int = -1, /) -> bytes:
        # The decompressor shares our descriptor, and with it the position in the file.
        self._show(os.lseek(self._payload.file.fileno(), 0, os.SEEK_CUR))
        return self._stream.read(size)

    def finish(self) -> None:
        """Read what follows the archive, so that damage there is noticed too."""
        while self._stream.read(1 << 20):
            pass
        self._show(self._payload.entry.size)

    def _show(self, position: int) -> None:
        self._task.advance(max(0, position - self._shown))
        self._shown = max(self._shown, position)
