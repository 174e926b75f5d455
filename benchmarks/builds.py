"""How big a definition's systems are, and what building them costs, for releases and architectures.

Builds each with an empty cache, one after the other, and prints the rows of the table in
docs/reference/sizes.md. Needs the network; a foreign architecture takes many minutes.

    python benchmarks/builds.py debian-core 13:amd64 13:arm64 12:i386
"""

import argparse
import json
import tarfile
import tempfile
from pathlib import Path

from costs import COREIMAGE, measure

_MIB = 1 << 20


def row(output: Path, name: str) -> list[str]:
    """Return release, architecture, packages, and MiB of root, tarballs and initrd of a build."""
    record = json.loads((output / f"livecd.{name}.build.json").read_text())
    packages = (output / f"livecd.{name}.manifest").read_text().count("\n")
    rootfs, device = (output / f"livecd.{name}.{kind}.tar.gz" for kind in ("rootfs", "device"))
    with tarfile.open(device) as archive:
        initrd = archive.getmember("assets/initrd.img").size
    return [
        f"{record['release']} ({record['series']})",
        record["arch"],
        str(packages),
        f"{record['rootfs_bytes'] / _MIB:.0f}",
        f"{rootfs.stat().st_size / _MIB:.0f}",
        f"{record['device_bytes'] / _MIB:.0f}",
        f"{device.stat().st_size / _MIB:.0f}",
        f"{initrd / _MIB:.1f}",
    ]


def main() -> None:
    """Build what the command line names and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("definition")
    parser.add_argument("builds", nargs="+", metavar="RELEASE:ARCH")
    parser.add_argument("--workspace", type=Path, help="where the definition is looked for")
    given = parser.parse_args()
    heads = ["release", "arch", "packages", "root MiB", "its tarball", "device MiB", "its tarball"]
    print(f"| {' | '.join([*heads, 'initrd MiB', 'CPU s', 'wall s'])} |")
    print("|---" * 10 + "|")
    at = ["--workspace", given.workspace] if given.workspace else []
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="coreimage-bench-") as scratch:
        for each in given.builds:
            release, _, arch = each.partition(":")
            output = Path(scratch, f"{release}-{arch}")
            words = ["--release", release, "--arch", arch, "--output", output, *at]
            argv = [*COREIMAGE, "rootfs", "build", given.definition, *words]
            cost = measure(f"{release} {arch}", argv, folder=Path(scratch))
            cells = [*row(output, given.definition), f"{cost.cpu:.0f}", f"{cost.wall:.0f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
