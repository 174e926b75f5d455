"""What each stage of the road costs: wall and CPU seconds, and the memory of the largest process.

Builds Debian 13 in a temporary workspace, stage by stage as separate commands, beside plain
mmdebstrap with the same packages in the same run. Needs the network and about three minutes.

    python benchmarks/stages.py [--runs N] [--json FILE]
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from costs import COREIMAGE, Cost, measure, print_table, summary


def peer_argv(record: Path, output: Path) -> list[object]:
    """Return plain mmdebstrap with the packages of a build and everything else as it comes."""
    names = [name.partition("_")[0] for name, _ in json.loads(record.read_text())["packages"]]
    return [
        *("mmdebstrap", "--variant=minbase", f"--include={','.join(sorted(set(names)))}"),
        *('--aptopt=APT::Install-Recommends "false"', "trixie", output),
    ]


def go(folder: Path) -> Iterator[Cost]:
    """Go the road once and yield what each stage cost."""
    space = folder / "workspace"
    at = ["--workspace", space]
    channel = "debian-core/13/edge"
    disk = folder / "x86.img"
    yield measure("init, four RSA keys", [*COREIMAGE, "init", space], folder=folder)
    build = [*COREIMAGE, "build", "request", "debian-core", "--release", "13"]
    yield measure("rootfs build", [*build, *at], folder=folder)
    record = space / "builds/1/artifacts/livecd.debian-core.build.json"
    peer = peer_argv(record, folder / "peer.tar")
    yield measure("peer: mmdebstrap to a tar", peer, folder=folder)
    packed = ["pigz", "-3", folder / "peer.tar"]
    yield measure("peer: pigz -3 of that tar", packed, folder=folder)
    yield measure("publish and import", [*COREIMAGE, "pipeline", "advance", *at], folder=folder)
    yield measure("import, unchanged", [*COREIMAGE, "image", "import", channel, *at], folder=folder)
    flash = [*COREIMAGE, "flash", "core", "13", "--channel", "edge", "--output", disk, *at]
    yield measure("flash", flash, folder=folder)
    road = [*COREIMAGE, "pipeline", "run", "debian-core", "--output", disk, *at]
    yield measure("road, nothing changed", road, folder=folder)
    for firmware in ("bios", "uefi"):
        test = [*COREIMAGE, "boot", disk, "--test", "--firmware", firmware]
        yield measure(f"boot test, {firmware}", test, folder=folder)
    yield measure("--help", [*COREIMAGE, "--help"], folder=folder)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1, help="the medians of N runs")
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    options = parser.parse_args()
    runs = []
    for _ in range(options.runs):
        folder = Path(tempfile.mkdtemp(prefix="coreimage-bench-", dir="/var/tmp"))
        runs.append(list(go(folder)))
        shutil.rmtree(folder)
    costs = summary(runs)
    print_table("stage", costs, runs=options.runs)
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in costs], indent=1) + "\n")


if __name__ == "__main__":
    main()
