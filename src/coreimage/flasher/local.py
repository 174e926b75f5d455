"""Parts of an image that are on this machine: a build, a publication, a tarball, a tree.

What has a record of its digests is checked against it; what has none is taken as it is, because
whoever names a file of their own has decided to trust it.
"""

import json
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from coreimage.errors import DataError, NotFoundError, TrustError, UsageError
from coreimage.flasher.remote.source import Payload
from coreimage.lib import compress, files, tar
from coreimage.lib.fetch import check_digest, open_regular
from coreimage.model.index import Image, ImageFile, ImageType
from coreimage.model.publication import parse_checksums, target_in

_MAX_RECORD = 8 << 20


class Kind(StrEnum):
    """The parts of an image that can be replaced."""

    ROOTFS = "rootfs"
    DEVICE = "device"


_SUFFIXES = {Kind.ROOTFS: ".rootfs.tar.gz", Kind.DEVICE: ".device.tar.gz"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWish:
    """What a person wants to take from this machine, and where builds and publications are."""

    rootfs: str | None = None
    device_part: str | None = None
    builds: Path | None = None
    publications: Path | None = None

    @property
    def whole(self) -> bool:
        """Whether no server is needed."""
        return self.rootfs is not None

    @property
    def nothing(self) -> bool:
        """Whether everything comes from a server."""
        return self.rootfs is None and self.device_part is None


NOTHING_LOCAL = LocalWish()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPart:
    """A tarball of this machine, and what people call it."""

    kind: Kind
    path: Path
    label: str
    sha256: str
    size: int

    @property
    def entry(self) -> ImageFile:
        """What it would be as a file of an image."""
        path = f"/local/{self.kind}/{self.path.name}"
        order = 0 if self.kind is Kind.ROOTFS else 1
        return ImageFile(order=order, path=path, checksum=self.sha256, size=self.size)


def find_parts(wish: LocalWish, *, arch: str, scratch: Path) -> list[LocalPart]:
    """Return the parts that a person wants, root file system first.

    A build or a publication brings its device part along, unless another one is named. Raises
    NotFoundError that names the builds there are, DataError for a build of another architecture,
    TrustError for a file that is not the one of its record, UsageError when the part that starts
    a root file system is not named.
    """
    parts = []
    device = wish.device_part
    if wish.rootfs is not None:
        parts.append(_find(wish.rootfs, Kind.ROOTFS, wish, arch=arch, scratch=scratch))
        if device is None:
            if not _is_set(wish.rootfs, wish):
                raise UsageError(
                    f"'{wish.rootfs}' has no kernel: images keep it in their device part",
                    hint="name a device tarball, or a build, with --device-part",
                )
            device = wish.rootfs
    if device is not None:
        parts.append(_find(device, Kind.DEVICE, wish, arch=arch, scratch=scratch))
    return parts


def local_image(parts: Sequence[LocalPart]) -> Image:
    """Return parts as an image that is of no channel: its version is 0."""
    return Image(
        type=ImageType.FULL,
        version=0,
        files=[part.entry for part in parts],
        description="local",
        version_detail=",".join(f"{part.kind}={part.label}" for part in parts),
    )


@contextmanager
def opened(parts: Sequence[LocalPart]) -> Iterator[Sequence[Payload]]:
    """Yield parts as open files whose digests were seen to be the ones of the plan."""
    with ExitStack() as stack:
        payloads = []
        for part in parts:
            file = stack.enter_context(open_regular(part.path))
            check_digest(file, part.sha256, name=str(part.path))
            file.seek(0)
            payloads.append(Payload(entry=part.entry, file=file))
        yield payloads


def _is_set(spec: str, wish: LocalWish) -> bool:
    """Tell whether a name means a build or a publication, which have all parts."""
    folder = _folder(spec, wish)
    return folder is not None and not _is_tree(folder)


def _folder(spec: str, wish: LocalWish) -> Path | None:
    """Return the folder that is meant: of a path, of a build, of a publication."""
    if Path(spec).is_dir():
        return Path(spec)
    if Path(spec).is_file():
        return None
    if wish.builds is not None and spec.isdecimal() and (wish.builds / spec).is_dir():
        return wish.builds / spec
    if wish.publications is not None and ".." not in spec.split("/"):
        for candidate in (spec, "/daily-preinstalled/".join(spec.rpartition("/")[::2])):
            if (wish.publications / candidate / "SHA256SUMS").is_file():
                return (wish.publications / candidate).resolve()
    raise _missing(spec, wish)


def _missing(spec: str, wish: LocalWish) -> NotFoundError:
    builds = sorted(wish.builds.glob("*/artifacts")) if wish.builds is not None else []
    known = ", ".join(path.parent.name for path in builds)
    return NotFoundError(
        f"'{spec}' is no file, folder, build or publication",
        hint=f"the builds are {known}" if known else "give the path of a tarball or of a folder",
    )


def _is_tree(folder: Path) -> bool:
    return not ((folder / "SHA256SUMS").is_file() or _artifacts(folder).is_dir())


def _artifacts(folder: Path) -> Path:
    """Return where a build's artifacts are; they may also have been copied away from it."""
    copied = any(folder.glob("livecd.*.build.json"))
    return folder if copied else folder / "artifacts"


def _find(spec: str, kind: Kind, wish: LocalWish, *, arch: str, scratch: Path) -> LocalPart:
    folder = _folder(spec, wish)
    if folder is None:
        return _part(kind, Path(spec), label=Path(spec).name)
    if (folder / "SHA256SUMS").is_file():
        return _of_publication(folder, kind, arch)
    if _artifacts(folder).is_dir():
        return _of_build(_artifacts(folder), kind, arch, label=f"build {folder.name}")
    if kind is Kind.DEVICE:
        raise DataError(
            f"'{spec}' is a folder, but neither a build nor a publication",
            hint="give a device tarball with --device-part",
        )
    packed = scratch / "local-rootfs.tar.zst"
    pack_tree(folder, packed)
    return _part(kind, packed, label=str(folder))


def _part(kind: Kind, path: Path, *, label: str, expected: str = "") -> LocalPart:
    found = files.sha256_of(path)
    if expected and found != expected:
        raise TrustError(
            f"'{path}' has sha256 {found}, its record says {expected}",
            hint="it was changed or damaged since it was made; make it anew",
        )
    return LocalPart(kind=kind, path=path, label=label, sha256=found, size=path.stat().st_size)


def _of_build(artifacts: Path, kind: Kind, arch: str, *, label: str) -> LocalPart:
    found = sorted(artifacts.glob(f"livecd.*{_SUFFIXES[kind]}"))
    records = sorted(artifacts.glob("livecd.*.build.json"))
    if len(found) != 1 or len(records) != 1:
        raise NotFoundError(
            f"{label} has no {kind} tarball",
            hint="see its state with 'coreimage build list'",
        )
    record = _record(records[0])
    if record.get("arch", arch) != arch:
        raise DataError(
            f"{label} is of {record['arch']}, the OEM package for {arch}",
            hint="name an OEM package of that architecture with --oem",
        )
    digests = record.get("sha256")
    expected = digests.get(found[0].name, "") if isinstance(digests, dict) else ""
    return _part(kind, found[0], label=label, expected=str(expected))


def _record(path: Path) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_RECORD))
    except ValueError as error:
        raise DataError(f"'{path}' is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"'{path}' is not an object")
    return document


def _of_publication(folder: Path, kind: Kind, arch: str) -> LocalPart:
    ending = ".tar.gz" if kind is Kind.ROOTFS else ".device.tar.gz"
    sums = folder / "SHA256SUMS"
    listed = parse_checksums(sums.read_text(errors="replace"), source=str(sums))
    names = [
        name
        for name in listed
        if name.endswith(ending) and target_in(name.removesuffix(ending)) == arch
    ]
    if len(names) != 1:
        raise NotFoundError(
            f"publication '{folder}' has no {kind} tarball of {arch}",
            hint=f"it has {', '.join(sorted(listed))}",
        )
    label = f"publication {folder.name}"
    return _part(kind, folder / names[0], label=label, expected=listed[names[0]])


def pack_tree(root: Path, target: Path) -> None:
    """Pack a tree as the new file `target`: sorted, with its owners, modes and attributes.

    Sockets are left out. Hard links stay together.
    """
    seen: dict[tuple[int, int], str] = {}
    with (
        target.open("xb") as file,
        compress.compressing(file, kind="zst", level=1) as stream,
        tar.writing(stream) as archive,
    ):
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted([*folders, *names]):
                _add(archive, root, Path(folder, name), seen)
            folders[:] = [name for name in folders if not Path(folder, name).is_symlink()]


def _add(
    archive: tarfile.TarFile, root: Path, path: Path, seen: dict[tuple[int, int], str]
) -> None:
    name = path.relative_to(root).as_posix()
    state = path.lstat()
    if stat.S_ISSOCK(state.st_mode):
        return
    member = archive.gettarinfo(path, arcname=name)
    identity = (state.st_dev, state.st_ino)
    archive.inodes.clear()  # type: ignore[attr-defined]  # ours does the same in any order
    if member.isreg() and identity in seen:
        member.type, member.linkname, member.size = tarfile.LNKTYPE, seen[identity], 0
    member = tar.plain(member)
    for attribute in os.listxattr(path, follow_symlinks=False):
        value = os.getxattr(path, attribute, follow_symlinks=False)
        member.pax_headers = {
            **member.pax_headers,
            f"SCHILY.xattr.{attribute}": value.decode("utf-8", "surrogateescape"),
        }
    if member.isreg():
        seen[identity] = name
        with path.open("rb") as file:
            archive.addfile(member, file)
    else:
        archive.addfile(member)
    archive.members.clear()  # type: ignore[attr-defined]  # else all stay in memory
