"""Version tarballs for channels that take images from others: the same file, told anew.

Source: wiki.ubuntu.com/ImageBasedUpgrades/Client, sections "Build number" and "channel.ini".
"""

import io
import lzma
import re
from dataclasses import dataclass

from coreimage.errors import DataError
from coreimage.lib import tar
from coreimage.model.index import ImageFile

_NAME = re.compile(r"version-[0-9]+\.tar\.xz\Z")
_INI = "system/etc/system-image/channel.ini"
_BUILD = "system/etc/ubuntu-build"
_LINE = re.compile(r"(?P<key>[A-Za-z_]+)\s*[:=]")
_MAX_SIZE = 1 << 20
_MAX_MEMORY = 128 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """What a version tarball tells a device; `target` is set in channels that follow one."""

    channel: str
    device: str
    version: int
    version_detail: str
    target: str | None = None


def is_version_file(file: ImageFile) -> bool:
    """Tell whether a file of an image is its version tarball."""
    return _NAME.match(file.path.rpartition("/")[2]) is not None


def retell(content: bytes, telling: Telling, *, name: str) -> bytes:
    """Return a version tarball that tells something else; settings of the server stay.

    The same arguments give the same bytes. Raises DataError for a file that is no version tarball.
    """
    packed = io.BytesIO()
    told = set()
    with (
        tar.reading(io.BytesIO(_unpacked(content, name)), archive=name) as source,
        tar.writing(packed) as target,
    ):
        for member in tar.members(source, archive=name):
            file = source.extractfile(member) if member.isreg() else None
            data = file.read() if file is not None else b""
            if member.name == _INI:
                data = _channel_ini(data.decode(errors="replace"), telling).encode()
            elif member.name == _BUILD:
                data = f"{telling.version}\n".encode()
            told.add(member.name)
            member.size = len(data)
            target.addfile(tar.plain(member), io.BytesIO(data))
    if _INI not in told:
        raise DataError(f"'{name}' is not a version tarball: it has no '{_INI}'")
    return lzma.compress(packed.getvalue(), check=lzma.CHECK_CRC32)


def _unpacked(content: bytes, name: str) -> bytes:
    try:
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MAX_MEMORY)
        data = decoder.decompress(content, max_length=_MAX_SIZE)
    except lzma.LZMAError as error:
        raise DataError(f"'{name}' is damaged: {error}") from error
    if not decoder.eof:
        raise DataError(f"'{name}' is cut short, or larger than {_MAX_SIZE} bytes")
    return data


def _channel_ini(text: str, telling: Telling) -> str:
    """Return channel.ini with its lines about the image replaced, all others as they are."""
    told = {
        "channel": telling.channel,
        "device": telling.device,
        "build_number": str(telling.version),
        "channel_target": telling.target,
        "version_detail": telling.version_detail,
    }
    kept = [
        line
        for line in text.splitlines()
        if (match := _LINE.match(line)) is None or match["key"] not in told
    ]
    lines = [f"{key}: {value}" for key, value in told.items() if value is not None]
    return "\n".join([*kept, *lines, ""])


def renumbered(version_detail: str, version: int) -> str:
    """Return a version_detail with the number of another image."""
    parts = [part for part in version_detail.split(",") if part]
    return ",".join(
        [*(part for part in parts if not part.startswith("version=")), f"version={version}"]
    )
