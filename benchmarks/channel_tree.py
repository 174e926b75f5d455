"""What edits of a channel tree cost, against the number of devices and of images.

Makes trees of tiny files in a temporary folder, and runs the commands on them. Numbers are of
whole commands: wall and CPU seconds, and the memory of the largest process. Only the files' sizes
are not real, and the signatures of files that no command looks at. About five minutes.

    python benchmarks/channel_tree.py [--json FILE] [--tree 200x100]...

CPU seconds, two cores under load: with 1 device of 100 images and with 1 of 1 000, hide 0.40 and
0.42, phase 0.48 and 0.61, copy 0.53 and 0.58, refresh 0.40 and 0.45, missing 0.37 and 0.47, gc 0.42
and 0.52; memory 52 and 62 MiB. Starting the program is 0.15 of it.
"""

import argparse
import hashlib
import io
import json
import lzma
import os
import sys
import tarfile
import tempfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from costs import COREIMAGE, Cost, measure

from coreimage.config import Workspace, load_workspace
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.index import Image, ImageFile, ImageType, Index
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys import keyrings
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import editing
from coreimage.systemimage.tree.images import add_images
from coreimage.systemimage.tree.transaction import Edit

CHANNEL, TARGET = "core/13/edge", "core/13/stable"
TREES = ("1x100", "50x100", "200x100", "1x1000")


def version_tarball(device: str, version: int) -> bytes:
    """Return a version tarball as small as they are."""
    text = f"[service]\nchannel: {CHANNEL}\ndevice: {device}\nbuild_number: {version}\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in (
            ("system/etc/ubuntu-build", f"{version}\n"),
            ("system/etc/system-image/channel.ini", text),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return lzma.compress(buffer.getvalue(), preset=0, check=lzma.CHECK_CRC32)


class Forge:
    """Puts files into a tree with a signature that is made once: nobody here verifies them."""

    def __init__(self, edit: Edit) -> None:
        self._root = edit.workspace.channel_tree
        # Outlives the transaction, for the links to it.
        sample, self._signature = self._root / "pool/sample", self._root / "pool/sample.asc"
        sample.parent.mkdir(parents=True, exist_ok=True)
        sample.touch()
        Signer(edit.workspace.gpg_home).sign(sample, self._signature, key=KeyringType.IMAGE_SIGNING)

    def put(self, order: int, template: str, content: bytes) -> ImageFile:
        """Write a file and return its entry."""
        digest = hashlib.sha256(content).hexdigest()
        path = template.format(digest)
        final = self._root / path[1:]
        if not final.exists():
            final.parent.mkdir(parents=True, exist_ok=True)
            final.write_bytes(content)
            Path(f"{final}.asc").hardlink_to(self._signature)
        return ImageFile(order=order, path=path, checksum=digest, size=len(content))


def make_tree(root: Path, devices: int, images: int) -> Workspace:
    """Make a workspace whose channel has `devices` with `images` each; they share a rootfs."""
    root.mkdir(parents=True)
    (root / "coreimage.toml").touch()
    workspace, now = load_workspace(root), datetime.now(UTC)
    keyrings.generate(workspace, progress=Silent(), now=now)
    for name in (CHANNEL, TARGET):
        channels.create_channel(workspace, name, now=now)
    with editing.edit(workspace, now=now, purpose="benchmark") as edit:
        forge = Forge(edit)
        for number in range(devices):
            device = f"device{number:03d}"
            made = [image(forge, device, version) for version in range(1, images + 1)]
            edit.put_index(CHANNEL, device, add_images(Index(generated_at=now), made))
    return workspace


def image(forge: Forge, device: str, version: int) -> Image:
    """Return an image of three files."""
    files = [
        forge.put(0, "/pool/rootfs-{}.tar.xz", f"rootfs {version}".encode()),
        forge.put(1, "/pool/boot-{}.tar.xz", f"{device} {version}".encode()),
        forge.put(
            2, f"/{CHANNEL}/{device}/version-{version}.tar.xz", version_tarball(device, version)
        ),
    ]
    return Image(
        type=ImageType.FULL,
        version=version,
        files=files,
        description=f"core 13 {version}",
        version_detail=f"rootfs={version},boot={version},version={version}",
    )


def commands(images: int) -> dict[str, list[str]]:
    """Return what is measured, in its order, on a tree that has so many images for a device."""
    device = "device000"
    return {
        "--help, for comparison": ["--help"],
        "channel hide": ["channel", "hide", CHANNEL],
        "image phase": ["image", "phase", CHANNEL, device, str(images), "20"],
        "image withdraw": ["image", "withdraw", CHANNEL, device, "1", "--reason", "slow"],
        "image tag": ["image", "tag", CHANNEL, device, "2", "OTA-1"],
        "image copy": ["image", "copy", CHANNEL, TARGET, device],
        "image list": ["image", "list", CHANNEL, device],
        "channel list": ["channel", "list"],
        "channel show": ["channel", "show", CHANNEL],
        "channel refresh": ["channel", "refresh", "--force"],
        "image missing": ["image", "missing"],
        "image gc, nothing to do": ["image", "gc"],
        "image expire, half": ["image", "expire", CHANNEL, "--keep", str(images // 2)],
        "image gc, what expired": ["image", "gc", "--grace", "0"],
    }


def measure_tree(folder: Path, spec: str) -> list[Cost]:
    """Return what each command costs on a tree such as 200x100."""
    devices, images = map(int, spec.split("x"))
    workspace = make_tree(folder / "workspace", devices, images)
    os.chdir(workspace.root)
    return [
        replace(
            measure(f"{spec} {name}".replace("/", "-"), [*COREIMAGE, *words], folder=folder),
            stage=name,
        )
        for name, words in commands(images).items()
    ]


def main() -> None:
    """Measure all trees and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    parser.add_argument("--tree", action="append", help="DEVICESxIMAGES; may be repeated")
    options = parser.parse_args()
    found: dict[str, list[Cost]] = {}
    for spec in options.tree or TREES:
        with tempfile.TemporaryDirectory(prefix="channel-tree-") as folder:
            found[spec] = measure_tree(Path(folder), spec)
            os.chdir("/")
    print("| command | " + " | ".join(f"{spec}: CPU s, wall s, MiB" for spec in found) + " |")
    print("|---|" + "---|" * len(found))
    for costs in zip(*found.values(), strict=True):
        cells = [f"{each.cpu:.2f}, {each.wall:.2f}, {each.memory:.0f}" for each in costs]
        print(f"| {costs[0].stage} | " + " | ".join(cells) + " |")
    if options.json:
        document = {spec: [asdict(cost) for cost in costs] for spec, costs in found.items()}
        options.json.write_text(json.dumps(document, indent=4) + "\n")


if __name__ == "__main__":
    main()
