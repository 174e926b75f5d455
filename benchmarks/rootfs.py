"""What root file system builds cost, beside plain mmdebstrap in the same run.

All build definitions/reference; its packages are there already, and nothing else is. Ours packs
its tarballs, mmdebstrap writes a plain tar. Needs the network once.

    python benchmarks/rootfs.py [--runs N] [--json FILE]
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from stages import COREIMAGE, Cost, measure

HERE = Path(__file__).parent
HOOK = "#!/bin/sh\necho {number} > /etc/benchmark\n"


class Ground:
    """A workspace with the definition, and a lock that tells the packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.space = folder / "workspace"
        self.definition = self.space / "definitions/reference"
        shutil.copytree(HERE / "definitions/reference", self.definition)
        (self.space / "coreimage.toml").touch()
        self._count = 0

    def build(self, stage: str) -> Cost:
        """Build into a new directory, and remove it."""
        output = self.folder / "out"
        argv = [*COREIMAGE, "rootfs", "build", "reference", "--output", output]
        cost = measure(stage, [*argv, "--workspace", self.space], folder=self.folder)
        self.lock = json.loads((output / "livecd.reference.lock.json").read_text())
        shutil.rmtree(output)
        return cost

    def forget(self, *kinds: str) -> None:
        """Delete parts of the cache."""
        for kind in kinds:
            shutil.rmtree(self.space / "cache" / kind, ignore_errors=True)

    def change_hook(self) -> None:
        """Write a hook that was never there before."""
        self._count += 1
        hook = self.definition / "hooks/10-benchmark.chroot"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(HOOK.format(number=self._count))
        hook.chmod(0o755)

    def archives(self) -> Path:
        """Return a folder with the packages under the names that apt gives them."""
        place = self.folder / "archives"
        if not place.exists():
            place.mkdir()
            for each in self.lock["packages"]:
                name = f"{each['name']}_{each['version'].replace(':', '%3a')}_"
                stored = self.space / "cache/packages" / each["sha256"][:2]
                os.link(
                    stored / f"{each['sha256']}.deb", place / f"{name}{each['architecture']}.deb"
                )
        return place


def mmdebstrap_argv(ground: Ground) -> list[object]:
    """Return plain mmdebstrap with the same packages, sources and packages at hand."""
    import tomllib

    definition = tomllib.loads((ground.definition / "definition.toml").read_text())
    wanted = [*definition["packages"], *definition["architectures"]["amd64"]["packages"]]
    cache = '"$1/var/cache/apt/archives"'
    copy = f"mkdir -p {cache}; cp -l {ground.archives()}/*.deb {cache}/"
    return [
        *("mmdebstrap", "--variant=minbase", f"--include={','.join(wanted)}"),
        *("--skip=essential/unlink", f"--setup-hook={copy}"),
        *("bookworm", ground.folder / "peer.tar", *ground.lock["sources"]),
    ]


def go(ground: Ground) -> Iterator[Cost]:
    """Measure everything once."""
    yield measure("mmdebstrap, to a tar", mmdebstrap_argv(ground), folder=ground.folder)
    ground.forget("apt", "stages", "images")
    yield ground.build("coreimage, cold")
    ground.forget("images")
    ground.change_hook()
    yield ground.build("coreimage, a hook has changed")
    yield ground.build("coreimage, nothing has changed")
    yield measure(
        "pigz -9 of mmdebstrap's tar",
        ["pigz", "-9", "--keep", "--force", ground.folder / "peer.tar"],
        folder=ground.folder,
    )
    (ground.folder / "peer.tar").unlink()


def summary(runs: Sequence[Sequence[Cost]]) -> list[Cost]:
    """Return the median of each stage over the runs."""
    return [
        Cost(
            stage=costs[0].stage,
            wall=statistics.median(each.wall for each in costs),
            cpu=statistics.median(each.cpu for each in costs),
            memory=statistics.median(each.memory for each in costs),
        )
        for costs in zip(*runs, strict=True)
    ]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="the medians of N runs")
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="coreimage-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    ground = Ground(folder)
    ground.build("fetch the packages")
    runs = [list(go(ground)) for _ in range(options.runs)]
    costs = summary(runs)
    peer, ours = costs[0], costs[1]
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, medians of {options.runs} run(s)\n")
    print("| build | wall, s | CPU, s | memory of the largest process, MiB |")
    print("|---|---:|---:|---:|")
    for each in costs:
        print(f"| {each.stage} | {each.wall:.1f} | {each.cpu:.1f} | {each.memory:.0f} |")
    ratios = f"CPU {ours.cpu / peer.cpu:.2f}, wall {ours.wall / peer.wall:.2f}"
    print(f"\ncold build / mmdebstrap: {ratios}")

    if options.json:
        options.json.write_text(json.dumps([[asdict(c) for c in run] for run in runs]) + "\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
