"""What root file system builds cost, beside other builders in the same run.

All build definitions/reference, with its packages there already and nothing else. Ours packs its
tarballs; mmdebstrap writes a plain tar, and live-build, which needs root, leaves a tree. mmdebstrap
runs twice: in the usual place for temporary files, and in memory, where ours builds when there is
plenty. Needs the network once.

    python benchmarks/rootfs.py [--runs N] [--json FILE]
"""

import argparse
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from costs import COREIMAGE, Cost, measure, print_table, summary

HERE = Path(__file__).parent
HOOK = "#!/bin/sh\necho {number} > /etc/benchmark\n"
PEER = "mmdebstrap, to a tar"
COLD = "coreimage, cold"


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

    def wanted(self) -> list[str]:
        """Return the packages that the definition asks for."""
        definition = tomllib.loads((self.definition / "definition.toml").read_text())
        return [*definition["packages"], *definition["architectures"]["amd64"]["packages"]]

    def mirrors(self) -> tuple[str, str]:
        """Return where packages come from, and where fixes of flaws do."""
        words = [line.split() for line in self.lock["sources"]]
        urls = {suite: url for *_, url, suite, _ in words}
        return urls["bookworm"], urls["bookworm-security"]

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


def mmdebstrap(ground: Ground, stage: str, place: str) -> Cost:
    """Run plain mmdebstrap in a place, with the same packages, sources and packages at hand."""
    cache = '"$1/var/cache/apt/archives"'
    copy = f"mkdir -p {cache}; cp {ground.archives()}/*.deb {cache}/"
    argv = [
        *("env", f"TMPDIR={place}", "mmdebstrap", "--variant=minbase"),
        *(f"--include={','.join(ground.wanted())}", "--skip=essential/unlink"),
        *(f"--setup-hook={copy}", "bookworm", ground.folder / "peer.tar"),
    ]
    return measure(stage, [*argv, *ground.lock["sources"]], folder=ground.folder)


def live_build(ground: Ground) -> Cost:
    """Run live-build up to its finished tree, with the same packages at hand."""
    place = ground.folder / "live"
    mirror, security = ground.mirrors()
    config = [
        *("lb", "config", "--mode", "debian", "--distribution", "bookworm", "--initramfs", "none"),
        *("--architectures", "amd64", "--linux-flavours", "cloud-amd64"),
        *("--archive-areas", "main", "--mirror-bootstrap", mirror, "--mirror-chroot", mirror),
        *("--mirror-chroot-security", security, "--mirror-binary", mirror),
        *("--mirror-binary-security", security, "--apt-recommends", "false"),
        *("--debootstrap-options", "--variant=minbase", "--firmware-chroot", "false"),
    ]
    here = ["env", f"--chdir={place}"]
    steps = [*here, "sh", "-ec", "lb bootstrap && lb chroot"]
    fetched = place.exists()
    place.mkdir(exist_ok=True)
    for left in (*place.iterdir(), place / "cache/bootstrap"):
        if left.name != "cache":
            shutil.rmtree(left, ignore_errors=True)
    measure("configure live-build", [*here, *config], folder=ground.folder)
    for hook in place.glob("config/hooks/*/*"):
        hook.unlink()
    wanted = place / "config/package-lists/reference.list.chroot"
    wanted.write_text("\n".join(ground.wanted()) + "\n")
    if not fetched:
        measure("fetch live-build's packages", steps, folder=ground.folder)
        return live_build(ground)
    return measure("live-build, its tree only", steps, folder=ground.folder)


def go(ground: Ground) -> Iterator[Cost]:
    """Measure everything once."""
    yield mmdebstrap(ground, PEER, tempfile.gettempdir())
    ground.forget("apt", "stages", "images")
    yield ground.build(COLD)
    yield mmdebstrap(ground, "mmdebstrap in memory, to a tar", "/dev/shm")  # noqa: S108
    ground.forget("images")
    ground.change_hook()
    yield ground.build("coreimage, a hook has changed")
    yield ground.build("coreimage, nothing has changed")
    pack = ["pigz", "-9", "--keep", "--force", ground.folder / "peer.tar"]
    yield measure("pigz -9 of mmdebstrap's tar", pack, folder=ground.folder)
    (ground.folder / "peer.tar").unlink()
    if shutil.which("lb") and os.geteuid() == 0:
        yield live_build(ground)


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
    print_table("build", costs, runs=options.runs)
    ours = next(each for each in costs if each.stage == COLD)
    for peer in costs:
        if ("mmdebstrap" in peer.stage and "pigz" not in peer.stage) or "live" in peer.stage:
            cpu, wall = ours.cpu / peer.cpu, ours.wall / peer.wall
            print(f"\n{COLD} / {peer.stage}: CPU {cpu:.2f}, wall {wall:.2f}")
    if options.json:
        options.json.write_text(json.dumps([[asdict(c) for c in run] for run in runs]) + "\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
