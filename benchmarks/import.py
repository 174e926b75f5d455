"""What imports cost: CPU, wall and memory against the size of an image and the size of a tree.

Generates everything that it needs, in a temporary folder with fresh keys: a root file system of
real programs of this machine, a sparse one of several GiB, trees of many images and many devices.
Each import is a process of its own. Beside the figures stand those of the original server, which
were measured on this kind of machine with a root file system of 459 MB.

    python benchmarks/import.py [--quick] [--only size|large|level|tree] [--json FILE]
"""

import argparse
import io
import json
import os
import platform
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from coreimage.config import Workspace, load_workspace
from coreimage.lib import compress, files
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.index import Image, ImageFile, ImageType, Index
from coreimage.model.keyring import KeyringType
from coreimage.model.publication import device_name, format_checksums, rootfs_name
from coreimage.systemimage.keys import keyrings
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import editing, layout
from coreimage.systemimage.tree.images import add_images, empty_index

CHANNEL, DEVICE, SERIES = "bench/edge", "generic_amd64", "trixie"
CONFIG = f"""
[channels."{CHANNEL}"]
project = "debian-core"
release = "13"
deltabase = ["{CHANNEL}"]
[compression]
xz = {{level}}
"""
# baselines of the original: what, wall in s, CPU in s, memory in MiB, and the sizes that came out.
ORIGINAL = (
    ("original: first import, xz -9", 422, 266, 1841, "113.8 MB"),
    ("original: 20 packages of 203 changed, with a delta", 787, 413, 1841, "114.1 + 50.7 MB"),
    ("original: one file changed, with a delta", 302, 307, 1841, "114.1 MB + 288 B"),
)
GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one process cost, children included; `memory` is the largest sum of the whole tree.

    Times in seconds, memory in MiB.
    """

    what: str
    wall: float
    cpu: float
    memory: float
    note: str = ""


def tree_memory(root: int) -> int:
    """Return the proportional set size, in KiB, of a process and all below it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total


def measure(what: str, argv: Sequence[object], note: str = "") -> Cost:
    """Run a command and return what it cost."""
    words = [str(word) for word in argv]
    begun = time.monotonic()
    log = os.open(tempfile.gettempdir(), os.O_RDWR | os.O_TMPFILE)
    child = os.posix_spawnp(
        words[0],
        words,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
    )
    peak = 0
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        peak = max(peak, tree_memory(child))
        time.sleep(0.05)
    if status:
        said = os.pread(log, 4000, 0).decode(errors="replace")
        sys.exit(f"{what} failed: {' '.join(words)}\n{said}")
    os.close(log)
    cost = Cost(
        what=what,
        wall=time.monotonic() - begun,
        cpu=usage.ru_utime + usage.ru_stime,
        memory=peak / 1024,
        note=note,
    )
    print(f"  {what}: {cost.wall:.1f} s, {cost.memory:.0f} MiB", file=sys.stderr, flush=True)
    return cost


class Space:
    """A workspace that measurements are made in."""

    def __init__(self, folder: Path, *, level: int = 1) -> None:
        self.root = folder
        folder.mkdir(parents=True)
        self.set_level(level)
        now = datetime.now(UTC)
        keyrings.generate(self.workspace, progress=Silent(), now=now)
        channels.create_channel(self.workspace, CHANNEL, now=now)

    @property
    def workspace(self) -> Workspace:
        return load_workspace(self.root)

    def set_level(self, level: int) -> None:
        """Choose the level of xz."""
        (self.root / "coreimage.toml").write_text(CONFIG.format(level=level))

    def publish(self, version: str, rootfs: Path) -> None:
        """Make a publication of a tarball and a small device tarball."""
        place = self.workspace.publications / f"debian-core/{SERIES}/daily-preinstalled/{version}"
        place.mkdir(parents=True)
        rootfs.rename(place / rootfs_name(SERIES, "core", "amd64"))
        with packed(place / device_name(SERIES, "core", "amd64")) as archive:
            add(archive, "assets/vmlinuz", b"kernel" * 1000)
        sums = {path.name: files.sha256_of(path) for path in place.glob("*.gz")}
        (place / "SHA256SUMS").write_text(format_checksums(sums))
        Signer(self.workspace.gpg_home).sign(
            place / "SHA256SUMS", place / "SHA256SUMS.gpg", key=KeyringType.IMAGE_SIGNING
        )

    def measure(self, what: str, *, device: str = DEVICE) -> Cost:
        """Import the newest publication and measure it."""
        argv = [
            *(sys.executable, "-m", "coreimage", "image", "import", CHANNEL, device),
            *("--series", SERIES, "--product", "core", "--workspace", self.root),
        ]
        cost = measure(what, argv)
        found = layout.read_index(self.workspace, CHANNEL, device)
        newest = max(image.version for image in found.images)
        sizes = [image.size for image in found.images if image.version == newest]
        return Cost(
            **{**asdict(cost), "note": " + ".join(f"{size / 1e6:.1f} MB" for size in sizes)}
        )


class packed:  # noqa: N801  used as a function
    """A gzipped tar archive that is written to a path."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._stream = compress.compressing(self._file, kind="gz", level=1)
        self._tar = tarfile.open(fileobj=self._stream.__enter__(), mode="w|")  # noqa: SIM115

    def __enter__(self) -> tarfile.TarFile:
        return self._tar

    def __exit__(self, *_: object) -> None:
        self._tar.close()
        self._stream.__exit__(None, None, None)
        self._file.close()


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
    archive.members.clear()  # type: ignore[attr-defined]  # else all stay in memory


def programs(path: Path, size: int, *, changed: float = 0, motd: str = "") -> None:
    """Write a root file system of this machine's own files, of `size` bytes of content.

    A share `changed` of the bytes is in files that are not those of a call with 0; one is `motd`.
    """
    total = others = 0
    with packed(path) as archive:
        for source in sorted(Path("/usr/lib").rglob("*")):
            if total >= size:
                break
            if source.is_symlink() or not source.is_file() or source.stat().st_size > size // 8:
                continue
            data = source.read_bytes()
            total += len(data)
            if others + len(data) <= changed * total:
                others += len(data)
                data = data[::-1]
            add(archive, str(source)[1:], data)
        add(archive, "etc/motd", f"{motd}\n".encode())


def hollow(path: Path, size: int) -> None:
    """Write a root file system with one file of zeros, and some that are not."""
    with packed(path) as archive:
        info = tarfile.TarInfo("usr/lib/hollow")
        info.size = size
        with Path("/dev/zero").open("rb") as zeros:
            archive.addfile(info, zeros)
        add(archive, "etc/motd", os.urandom(1 << 20))


def by_size(folder: Path, *, quick: bool) -> Iterator[Cost]:
    """Measure a first import, and others with deltas."""
    space, size = Space(folder / "size"), (60 if quick else 450) * 10**6
    tarball = folder / "rootfs.tar.gz"
    programs(tarball, size)
    space.publish("20260101", tarball)
    yield space.measure(f"first import, {size // 10**6} MB")
    yield space.measure("import, nothing new")
    programs(tarball, size, changed=0.35)
    space.publish("20260102", tarball)
    yield space.measure("35 % of the bytes changed, with a delta")
    programs(tarball, size, changed=0.35, motd="new")
    space.publish("20260103", tarball)
    yield space.measure("one file changed, with a delta")


def by_hollow(folder: Path, *, quick: bool) -> Iterator[Cost]:
    """Measure a large image."""
    tarball, size = folder / "rootfs.tar.gz", (GIB // 4 if quick else 5 * GIB // 2)
    large = Space(folder / "large")
    hollow(tarball, size)
    large.publish("20260101", tarball)
    yield large.measure(f"a file of {size / GIB:.2g} GiB of zeros")


def by_level(folder: Path, *, quick: bool) -> Iterator[Cost]:
    """Measure the levels of xz on the same tarball."""
    tarball = folder / "levels.tar.gz"
    programs(tarball, (30 if quick else 200) * 10**6)
    tar = folder / "levels.tar"
    with compress.opened(tarball) as source, tar.open("wb") as target:
        files.copy_stream(source, target)
    for level in (0, 1, 2, 3, 6):
        words = [sys.executable, "-c", _FILTER, level, tar, folder / "levels.xz"]
        cost = measure(f"xz -{level}", words)
        size = (folder / "levels.xz").stat().st_size
        yield Cost(**{**asdict(cost), "note": f"{size / 1e6:.1f} MB"})


_FILTER = """
import sys
from pathlib import Path
from coreimage.lib import compress, files
with Path(sys.argv[2]).open("rb") as source, Path(sys.argv[3]).open("wb") as target:
    with compress.compressing(target, kind="xz", level=int(sys.argv[1])) as packed:
        files.copy_stream(source, packed)
"""


def grown(space: Space, *, devices: int, images: int) -> None:
    """Give a channel many more devices with many images, all of the files of the first one."""
    workspace, now = space.workspace, datetime.now(UTC)
    newest = layout.read_index(workspace, CHANNEL, DEVICE).newest_full()
    assert newest is not None  # noqa: S101  it was just imported
    with editing.edit(workspace, now=now, purpose="bench") as edit:
        index = empty_index(now)
        for number in range(1, images + 1):
            index = add_images(index, [_again(newest, number)])
        for number in range(devices):
            edit.put_index(CHANNEL, f"device{number}", index)


def _again(image: Image, version: int) -> Image:
    entries = [
        ImageFile(order=file.order, path=file.path, checksum=file.checksum, size=file.size)
        for file in image.files
    ]
    return Image(type=ImageType.FULL, version=version, files=entries)


def by_tree(folder: Path, *, quick: bool) -> Iterator[Cost]:
    """Measure the same small import in small and in large trees."""
    space = Space(folder / "tree")
    tarball = folder / "small.tar.gz"
    day = 0

    def another(what: str) -> Cost:
        nonlocal day
        day += 1
        with packed(tarball) as archive:
            add(archive, "etc/motd", f"{day}".encode())
        space.publish(f"202601{day:02d}", tarball)
        return space.measure(what)

    another("warm-up")
    yield another("small import, 1 device, 1 image")
    devices, images = (20, 10) if quick else (200, 100)
    grown(space, devices=devices, images=images)
    yield another(f"small import beside {devices} devices with {images} images each")
    many = 100 if quick else 1000
    workspace, now = space.workspace, datetime.now(UTC)
    newest = layout.read_index(workspace, CHANNEL, DEVICE).newest_full()
    assert newest is not None  # noqa: S101  it was just imported
    with editing.edit(workspace, now=now, purpose="bench") as edit:
        index: Index = edit.index(CHANNEL, DEVICE)
        added = [_again(newest, newest.version + number) for number in range(1, many)]
        edit.put_index(CHANNEL, DEVICE, add_images(index, added))
    yield another(f"small import into {many} images of the same device")
    words = [sys.executable, "-m", "coreimage", "channel", "mirror"]
    pinned = ["--archive-master", workspace.archive_master]
    mirror = [*words, workspace.channel_tree, folder / "mirror", *pinned]
    yield measure(f"verification of the whole tree into a mirror, {devices + 1} devices", mirror)
    yield measure("the same, nothing new", mirror)


_KINDS = {"size": by_size, "large": by_hollow, "level": by_level, "tree": by_tree}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small trees, to see that it works")
    parser.add_argument("--only", choices=list(_KINDS), help="measure only this")
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="coreimage-bench-", dir="/var/tmp"))
    try:
        kinds = [_KINDS[options.only]] if options.only else list(_KINDS.values())
        costs = [cost for kind in kinds for cost in kind(folder, quick=options.quick)]
    finally:
        shutil.rmtree(folder)
    print(f"{platform.machine()}, {os.cpu_count()} CPUs\n")
    print("| what | wall, s | CPU, s | memory, MiB | size of full and delta |")
    print("|---|---:|---:|---:|---|")
    for each in costs:
        figures = f"{each.wall:.1f} | {each.cpu:.1f} | {each.memory:.0f}"
        print(f"| {each.what} | {figures} | {each.note} |")
    for what, wall, cpu, memory, note in ORIGINAL:
        print(f"| {what} | {wall} | {cpu} | {memory} | {note} |")
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in costs], indent=1) + "\n")


if __name__ == "__main__":
    main()
