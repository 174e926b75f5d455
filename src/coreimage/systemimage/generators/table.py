"""The table of generators that take a file of a publication, in the order of applying."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from coreimage.lib.files import Reader
from coreimage.model.publication import device_name, rootfs_name
from coreimage.systemimage.generators import device, rootfs


class Writer(Protocol):
    """Writes an image's tar stream from the tar stream of a publication."""

    def __call__(self, source: Reader, target: BinaryIO, *, name: str) -> None:
        """Read `source` to its end and write to `target`; `name` is for error messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """Where one file of an image comes from.

    `revision` grows when the same input gives other bytes. `source` names the input from series,
    product and arch.
    """

    name: str
    revision: int
    prefix: str
    source: Callable[[str, str, str], str]
    write: Writer


def _rootfs_source(series: str, product: str, arch: str) -> str:
    # Devices may have an arch of their own such as amd64.azure; their root file system is amd64's.
    return rootfs_name(series, product, arch.partition(".")[0])


GENERATORS = (
    Generator(
        name="cdimage-rootfs",
        revision=1,
        prefix="rootfs",
        source=_rootfs_source,
        write=rootfs.write,
    ),
    Generator(
        name="cdimage-device",
        revision=1,
        prefix="device",
        source=device_name,
        write=device.write,
    ),
)
