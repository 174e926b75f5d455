"""Publications: dated directories of artifacts, and the names that their files have.

Source of the names: the cdimage tree of Ubuntu, for example
ubuntu-core/daily-preinstalled/20150511/vivid-preinstalled-core-amd64.tar.gz.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

from coreimage.errors import DataError

IMAGE_TYPE = "daily-preinstalled"
_BUILD_ID = re.compile(r"([0-9]{8})(?:\.([1-9][0-9]{0,8}))?\Z")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9][A-Za-z0-9._+~-]*)\Z")


def build_id_key(version: str) -> tuple[int, int]:
    """Return what build ids sort by: 20150402.9 comes before 20150402.10; raises DataError."""
    match = _BUILD_ID.match(version)
    if match is None:
        raise DataError(f"'{version}' is not a build id such as 20150511 or 20150511.1")
    return int(match[1]), int(match[2] or 0)


def next_build_id(taken: set[str], *, today: date) -> str:
    """Return the first build id of a day that is not taken: 20150511, then .1, .2."""
    day = f"{today:%Y%m%d}"
    serials = [build_id_key(version)[1] for version in taken if version.split(".")[0] == day]
    return day if not serials else f"{day}.{max(serials) + 1}"


def is_build_id(name: str) -> bool:
    """Tell whether a directory's name is a build id."""
    return _BUILD_ID.match(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One dated directory of the publication tree; DataError for names that could leave it."""

    project: str
    series: str
    version: str

    def __post_init__(self) -> None:
        """Refuse names that are no names of directories."""
        for name in (self.project, self.series):
            if _PART.match(name) is None:
                raise DataError(f"'{name}' cannot be a project or series of a publication")
        build_id_key(self.version)

    @property
    def parent(self) -> PurePosixPath:
        """The directory of all build ids, relative to the publication tree."""
        return PurePosixPath(self.project, self.series, IMAGE_TYPE)

    @property
    def path(self) -> PurePosixPath:
        """The directory of this publication, relative to the publication tree."""
        return self.parent / self.version


def rootfs_name(series: str, product: str, arch: str) -> str:
    """Return the name of the rootfs tarball: vivid-preinstalled-core-amd64.tar.gz.

    For a device, here and in the others, `arch` is such as armhf.raspi2.
    """
    return f"{series}-preinstalled-{product}-{arch}.tar.gz"


def device_name(series: str, product: str, arch: str) -> str:
    """Return the name of the device tarball: vivid-preinstalled-core-amd64.device.tar.gz."""
    return f"{series}-preinstalled-{product}-{arch}.device.tar.gz"


def manifest_name(series: str, product: str, arch: str) -> str:
    """Return the name of the manifest: vivid-preinstalled-core-amd64.manifest."""
    return f"{series}-preinstalled-{product}-{arch}.manifest"


def sbom_name(series: str, product: str, arch: str) -> str:
    """Return the name of the bill of materials: vivid-preinstalled-core-amd64.cdx.json."""
    return f"{series}-preinstalled-{product}-{arch}.cdx.json"


def target_in(stem: str) -> str:
    """Return the arch, and the device if any, in a published file's name without its ending.

    That is armhf.raspi2 for vivid-preinstalled-core-armhf.raspi2: no product has a dot in its name,
    while a device may have hyphens.
    """
    before, dot, device = (stem.partition("-preinstalled-")[2] or stem).partition(".")
    return before.rpartition("-")[2] + dot + device


def parse_checksums(text: str, *, source: str) -> dict[str, str]:
    """Parse SHA256SUMS into file name to digest; raises DataError that names file and line."""
    sums: dict[str, str] = {}
    lines = text.removesuffix("\n").split("\n") if text else []
    for number, line in enumerate(lines, 1):
        match = _CHECKSUM_LINE.match(line)
        if match is None:
            raise DataError(f"{source}:{number}: not a line of SHA256SUMS")
        if sums.setdefault(match[2], match[1]) != match[1]:
            raise DataError(f"{source}:{number}: '{match[2]}' is listed twice")
    return sums


def format_checksums(sums: Mapping[str, str]) -> str:
    """Return the text of SHA256SUMS, names sorted, as sha256sum -b writes and -c reads it.

    Raises DataError for what `parse_checksums` would refuse.
    """
    lines = [f"{digest} *{name}" for name, digest in sorted(sums.items())]
    for line in lines:
        if _CHECKSUM_LINE.match(line) is None:
            raise DataError(f"'{line}' cannot stand in SHA256SUMS")
    return "".join(f"{line}\n" for line in lines)
