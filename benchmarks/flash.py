"""What flashing costs: from a server on this machine to a finished disk, beside others' image step.

Serves a workspace's channel tree over HTTP and flashes its newest image, once with an empty cache
and once with a full one; then makes a disk of the build that the image is of, without a server, as
do the peers: systemd-repart, which is mkosi's image step (needs root and loop devices), and
genimage. Theirs begins with unpacking the same tarballs by tar, and ends with a disk of the same
partitions, in which nothing boots: boot loader, verification and provisioning are ours alone.

Wall and CPU seconds; MiB of all processes together (PSS, sampled) and of the files in memory;
megabytes written to file systems on disks; what the disk takes, against its blocks that are not
zero.

    python benchmarks/flash.py WORKSPACE [--channel NAME] [--build ID] [--runs N] [--place FOLDER]
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COREIMAGE = [sys.executable, "-m", "coreimage"]
BLOCK = 4096
_ZEROS = bytes(BLOCK)
MEMORY = "/dev/shm"  # noqa: S108  only looked at
PLACE = Path("/var/tmp")  # noqa: S108  what is made in it is private
SIZE = 4 * 10**9
REPART = {
    "10-boot": "Type=esp\nFormat={fat}\nSizeMinBytes=128M\nSizeMaxBytes=128M\nCopyFiles={boot}:/\n",
    "20-a": "Type=root\nFormat=ext4\nSizeMinBytes=1G\nSizeMaxBytes=1G\nCopyFiles={system}:/\n",
    "30-b": "Type=root\nLabel=system-b\nSizeMinBytes=1G\nSizeMaxBytes=1G\n",
    "40-writable": "Type=linux-generic\nLabel=writable\nFormat=ext4\n",
}
GENIMAGE = """\
image boot.vfat {{ size = 128M  vfat {{ files = {{ {files} }} }} }}
image system-a.ext4 {{ size = 1024M  ext4 {{ use-mke2fs = true }} }}
image writable.ext4 {{ size = 1500M  empty = true  ext4 {{ use-mke2fs = true }} }}
image disk.img {{
    size = {size}
    hdimage {{ partition-table-type = gpt }}
    partition boot {{ image = boot.vfat }}
    partition system-a {{ image = system-a.ext4 }}
    partition system-b {{ size = 1024M }}
    partition writable {{ image = writable.ext4 }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run cost; memory in MiB, what was written and taken in MB."""

    wall: float
    cpu: float
    memory: float
    written: float
    taken: float = 0.0
    content: float = 0.0


def in_memory() -> float:
    """Return the MiB of all files that lie in memory."""
    state = os.statvfs(MEMORY)
    return (state.f_blocks - state.f_bfree) * state.f_frsize / (1 << 20)


def tree_memory(root: int) -> float:
    """Return the MiB that a process and all below it have, shared pages counted once."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    total, pending = 0, [root]
    while pending:
        process = pending.pop()
        pending += children.get(process, [])
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        match = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
        total += int(match[1]) if match else 0
    return total / 1024


def measure(argv: list[str], disk: Path) -> Cost:
    """Run a command that makes a disk and return what it cost."""
    before, begun, peak = in_memory(), time.monotonic(), 0.0
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, tree_memory(process.pid) + in_memory() - before)
            time.sleep(0.02)
        wall = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode and process.stderr:
            sys.exit(process.stderr.read().decode())
    return Cost(
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        memory=peak,
        written=usage.ru_oublock * 512 / 1e6,
        taken=disk.stat().st_blocks * 512 / 1e6,
        content=content(disk) / 1e6,
    )


def content(disk: Path) -> int:
    """Return the bytes of all blocks that are not zero."""
    size, position = 0, 0
    with disk.open("rb") as file:
        while True:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:
                return size
            block = os.pread(file.fileno(), BLOCK, position)
            size += BLOCK if block != _ZEROS[: len(block)] else 0
            position += BLOCK


@contextmanager
def served(workspace: Path) -> Iterator[str]:
    """Yield the URL of a server of a workspace's trees."""
    serve = [*COREIMAGE, "serve", "--port", "0", "--workspace", str(workspace)]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            line = server.stdout.readline().decode() if server.stdout else ""
            match = re.search(r"http://[0-9.]+:\d+", line)
            if match is None:
                sys.exit(f"the server says: {line}")
            yield match[0]
        finally:
            server.terminate()


class Ground:
    """A folder for one run, and the build that all make a disk of."""

    def __init__(self, folder: Path, artifacts: Path) -> None:
        self.folder = folder
        self.artifacts = artifacts

    def unpacking(self) -> str:
        """Return the shell text that unpacks the build's tarballs."""
        lines = ["set -e"]
        for part in ("rootfs", "device"):
            tarball = next(self.artifacts.glob(f"*.{part}.tar.gz"))
            unpack = f"tar --extract --preserve-permissions --xattrs --gzip --file {tarball}"
            lines += [f"mkdir {part}", f"{unpack} --directory {part} 2>/dev/null"]
        # What belongs to the root in the device tarball.
        return "\n".join([*lines, "cp -a device/system/. rootfs/", "mv device/assets boot", ""])

    def repart(self) -> tuple[list[str], Path]:
        """Return the command of systemd-repart, and its disk."""
        definitions = self.folder / "repart.d"
        definitions.mkdir()
        # It mounts what it makes, and not every kernel has FAT.
        fat = "vfat" if "vfat" in Path("/proc/filesystems").read_text() else "ext4"
        for name, text in REPART.items():
            places = {"boot": self.folder / "boot", "system": self.folder / "rootfs"}
            section = f"[Partition]\n{text.format(fat=fat, **places)}"
            (definitions / f"{name}.conf").write_text(section)
        disk = self.folder / "repart.img"
        words = f"--empty=create --size={SIZE // BLOCK * BLOCK} --dry-run=no --no-pager"
        line = f"systemd-repart {words} --definitions={definitions} {disk}"
        return self._shell(line), disk

    def genimage(self) -> tuple[list[str], Path]:
        """Return the command of genimage, and its disk."""
        config = self.folder / "genimage.cfg"
        names = '"vmlinuz", "initrd.img"'
        config.write_text(GENIMAGE.format(size=SIZE, files=names))
        line = (
            f"genimage --config {config} --rootpath rootfs --inputpath boot --outputpath . "
            "--tmppath temporary"
        )
        return self._shell(line), self.folder / "disk.img"

    def _shell(self, line: str) -> list[str]:
        return ["sh", "-c", f"cd {self.folder}\n{self.unpacking()}{line}\n"]

    def flash(self, *words: str, name: str) -> tuple[list[str], Path]:
        """Return our command, and its disk."""
        disk = self.folder / f"{name}.img"
        return [*COREIMAGE, "flash", "core", *words, "--output", str(disk)], disk


def tasks(
    options: argparse.Namespace, url: str
) -> dict[str, Callable[[Ground], tuple[list[str], Path]]]:
    """Return what is measured, in this order, in one folder each run."""
    remote = ["13", "--channel", options.channel, "--server", url, "--archive-master"]
    remote.append(str(options.workspace / "trust/archive-master.tar.xz"))
    local = ["--rootfs", str(options.workspace / "builds" / options.build)]
    found: dict[str, Callable[[Ground], tuple[list[str], Path]]] = {
        "over HTTP, empty cache": lambda ground: ground.flash(*remote, name="empty"),
        "over HTTP, full cache": lambda ground: ground.flash(*remote, name="full"),
        "of a build on this machine": lambda ground: ground.flash(*local, name="local"),
    }
    if shutil.which("systemd-repart") and os.geteuid() == 0:
        found["peer: tar and systemd-repart"] = Ground.repart
    if shutil.which("genimage"):
        found["peer: tar and genimage"] = Ground.genimage
    return found


def go(options: argparse.Namespace) -> dict[str, list[Cost]]:
    """Measure everything, and return the costs of all runs."""
    costs: dict[str, list[Cost]] = {}
    with served(options.workspace) as url:
        for _ in range(options.runs):
            with tempfile.TemporaryDirectory(
                prefix="coreimage-bench-", dir=options.place, ignore_cleanup_errors=True
            ) as name:
                ground = Ground(Path(name), options.workspace / "builds" / options.build)
                ground.artifacts /= "artifacts"
                os.environ |= {"HOME": name, "no_proxy": "127.0.0.1"}
                os.environ |= {"XDG_STATE_HOME": f"{name}/state"}
                os.chdir(name)
                for task, command in tasks(options, url).items():
                    argv, disk = command(ground)
                    cost = measure(argv, disk)
                    costs.setdefault(task, []).append(cost)
                    print(f"  {task}: {cost.wall:.1f} s", file=sys.stderr, flush=True)
                    if "peer" in task:
                        for left in ("rootfs", "device", "boot", "temporary", "root"):
                            shutil.rmtree(left, ignore_errors=True)
                os.chdir("/")
    return costs


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workspace", type=lambda text: Path(text).absolute())
    parser.add_argument("--channel", default="debian-core/13/edge")
    parser.add_argument("--build", default="1", help="the build that the image is of")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--place", type=Path, default=PLACE)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = {}
    for task, each in go(options).items():
        rows[task] = {
            field: statistics.median(getattr(cost, field) for cost in each)
            for field in ("wall", "cpu", "memory", "written", "taken", "content")
        }
    print(f"{os.cpu_count()} CPUs, medians of {options.runs} run(s)\n")
    print("| | wall, s | CPU, s | memory, MiB | written, MB | the disk takes, MB | more |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for task, row in rows.items():
        more = 100 * (row["taken"] / row["content"] - 1)
        cells = [f"{row['wall']:.1f}", f"{row['cpu']:.1f}"]
        cells += [f"{row[field]:.0f}" for field in ("memory", "written", "taken")]
        print(f"| {task} | {' | '.join(cells)} | {more:.1f} % |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
