"""A small channel tree, published with the real keys and transactions."""

import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from coreimage.config import Settings, Workspace
from coreimage.errors import NotFoundError
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.index import Image, ImageFile, ImageType, Index
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys import keychange, keyrings, rotation
from coreimage.systemimage.keys.resign import resign_all
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import editing, layout
from coreimage.systemimage.tree.images import add_images, empty_index

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BUILT_AT = 1_767_225_600
CHANNEL = "debian-core/13/edge"
DEVICE = "generic_amd64"
HARDWARE = b"kernel: assets/vmlinuz\ninitrd: assets/initrd.img\nbootloader: grub\n"
ROOTFS: Mapping[str, bytes] = {
    "system/etc/hostname": b"core\n",
    "system/usr/bin/true": b"#!/bin/sh\n",
    "system/etc/replaced": b"from the root filesystem\n",
}
DEVICE_FILES: Mapping[str, bytes] = {
    "assets/vmlinuz": b"a kernel" * 1000,
    "assets/initrd.img": b"an initrd" * 1000,
    "hardware.yaml": HARDWARE,
    "system/etc/replaced": b"from the device tarball\n",
}


def make_workspace(root: Path, *, now: datetime = NOW) -> Workspace:
    root.mkdir(parents=True)
    (root / "coreimage.toml").touch()
    workspace = Workspace(root=root, settings=Settings())
    keyrings.generate(workspace, progress=Silent(), now=now)
    channels.create_channel(workspace, CHANNEL, now=now)
    return workspace


def tarball(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(content), BUILT_AT, 0o644
            archive.addfile(member, io.BytesIO(content))
    return lzma.compress(buffer.getvalue(), preset=0)


def version_files(version: int, *, channel: str, device: str) -> dict[str, bytes]:
    text = f"[service]\nchannel: {channel}\ndevice: {device}\nbuild_number: {version}\n"
    return {
        "system/etc/system-image/channel.ini": text.encode(),
        "system/etc/ubuntu-build": f"{version}\n".encode(),
    }


def publish(
    workspace: Workspace,
    version: int,
    *,
    channel: str = CHANNEL,
    device: str = DEVICE,
    rootfs: Mapping[str, bytes | tarfile.TarInfo] = ROOTFS,
    device_files: Mapping[str, bytes] = DEVICE_FILES,
    says: Mapping[str, bytes] | None = None,
    files: Mapping[str, bytes] | None = None,
    now: datetime = NOW,
) -> Image:
    """Publish a full image; `says` replaces the members of its version tarball."""
    contents = files or {
        "/pool/ubuntu-{}.tar.xz": tarball(rootfs),
        "/pool/device-{}.tar.xz": tarball(device_files),
        f"/{channel}/{device}/version-{version}.tar.xz": tarball(
            version_files(version, channel=channel, device=device) if says is None else says
        ),
    }
    with editing.edit(workspace, now=now, purpose="test") as edit:
        signer = Signer(workspace.gpg_home)
        entries = []
        for order, (template, content) in enumerate(contents.items()):
            digest = hashlib.sha256(content).hexdigest()
            path = template.format(digest)
            staged = edit.scratch / str(order)
            staged.write_bytes(content)
            level = layout.payload_level(None)
            signer.sign(staged, Path(f"{staged}.asc"), key=level)
            edit.put_file(path, staged)
            entries.append(ImageFile(order=order, path=path, checksum=digest, size=len(content)))
        image = Image(type=ImageType.FULL, version=version, files=entries, description="test")
        edit.put_index(channel, device, add_images(_index(workspace, channel, device), [image]))
    return image


def replace_signing_key(workspace: Workspace, *, now: datetime = NOW) -> None:
    """Rotate image-signing, sign everything anew and retire the old key."""
    level = KeyringType.IMAGE_SIGNING
    steps = (
        lambda: rotation.rotate(workspace, level, now=now),
        lambda: rotation.retire(workspace, level, "", force=False, now=now),
    )
    for step in steps:
        keychange.carry_out(workspace, step, directory=None, now=now)
        resign_all(workspace, now=now, progress=Silent())


def _index(workspace: Workspace, channel: str, device: str) -> Index:
    try:
        return layout.read_index(workspace, channel, device)
    except NotFoundError:
        return empty_index(NOW)
