"""The table of generators that take a file of a publication."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from coreimage.lib.files import Reader
from coreimage.systemimage.imports.generators import device, rootfs


class Writer(Protocol):
    """Writes an image's tar stream from the tar stream of a publication."""

    def __call__(self, source: Reader, target: BinaryIO, *, name: str) -> None:
        """Read `source` to its end and write to `target`; `name` is for error messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """How one file of an image is made.

    `revision` grows when the same input gives other bytes. `files` is what the input is usually
    called: the first of these names that the publication has. `base_arch` in them is the part of a
    device's arch before the first dot.
    """

    revision: int
    files: Sequence[str]
    write: Writer


_ROOTFS_FILE = "{series}-preinstalled-{product}-{arch}.tar.gz"
_DEVICE_FILE = "{series}-preinstalled-{product}-{arch}.device.tar.gz"

GENERATORS: Mapping[str, Generator] = {
    "cdimage-rootfs": Generator(
        revision=2,
        # Devices may have an arch of their own such as amd64.azure. Their root file system is the
        # one that was built for them, or else that of amd64.
        files=(_ROOTFS_FILE, _ROOTFS_FILE.replace("{arch}", "{base_arch}")),
        write=rootfs.write,
    ),
    "cdimage-device": Generator(revision=1, files=(_DEVICE_FILE,), write=device.write),
    "cdimage-device-raw": Generator(revision=1, files=(_DEVICE_FILE,), write=device.write_raw),
    "cdimage-custom": Generator(
        revision=1,
        files=("{series}-preinstalled-{product}-{arch}.custom.tar.gz",),
        write=device.write_raw,
    ),
}
