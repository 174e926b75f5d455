"""The generator of version files: which image this is, and which server to ask for the next.

Source: wiki.ubuntu.com/ImageBasedUpgrades/Client, sections "Build number" and "channel.ini".
"""

import io
import tarfile
from dataclasses import dataclass
from typing import BinaryIO

from coreimage.config import PublicServer
from coreimage.lib import tar

NAME = "version"
REVISION = 2
_SETTINGS = "system/etc/system-image"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageIdentity:
    """What an image tells the device about itself; `target` is set in channels that follow one."""

    channel: str
    device: str
    version: int
    version_detail: str
    target: str | None = None


def channel_ini(identity: ImageIdentity, server: PublicServer) -> str:
    """Return the text of channel.ini."""
    fields = {
        "base": server.host,
        "http_port": server.http_port,
        "https_port": server.https_port,
        "channel": identity.channel,
        "device": identity.device,
        "build_number": identity.version,
        **({"channel_target": identity.target} if identity.target else {}),
        "version_detail": identity.version_detail,
    }
    return "[service]\n" + "".join(f"{key}: {value}\n" for key, value in fields.items())


def write(target: BinaryIO, *, identity: ImageIdentity, server: PublicServer, mtime: int) -> None:
    """Write the tar stream of a version file; `mtime` in UNIX seconds."""
    texts = {
        "system/etc/ubuntu-build": f"{identity.version}\n",
        f"{_SETTINGS}/channel.ini": channel_ini(identity, server),
    }
    links = {"00_default.ini": "../client.ini", "01_channel.ini": "../channel.ini"}
    with tar.writing(target) as archive:
        for name, text in texts.items():
            data = text.encode()
            member = tar.entry(name, mtime=mtime, mode=0o644, size=len(data))
            archive.addfile(member, io.BytesIO(data))
        folder = f"{_SETTINGS}/config.d"
        archive.addfile(tar.entry(folder, mtime=mtime, mode=0o775, kind=tarfile.DIRTYPE))
        for name, linkname in links.items():
            archive.addfile(
                tar.entry(
                    f"{folder}/{name}",
                    mtime=mtime,
                    mode=0o777,
                    kind=tarfile.SYMTYPE,
                    linkname=linkname,
                )
            )
