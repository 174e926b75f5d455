"""What flashing costs: from a server on this machine to a finished disk.

Serves a workspace's channel tree over HTTP and flashes its newest image, once with an empty cache
and once with a full one. Wall and CPU seconds, the memory of all processes together (PSS,
sampled), and what the disk takes against the blocks in it that are not zero.

    python benchmarks/flash.py WORKSPACE [--channel NAME] [--runs N]
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

COREIMAGE = [sys.executable, "-m", "coreimage"]
BLOCK = 4096
_ZEROS = bytes(BLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run cost; memory in MiB."""

    wall: float
    cpu: float
    memory: float


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


def measure(argv: list[str]) -> Cost:
    """Run a command and return what it cost."""
    begun, peak = time.monotonic(), 0.0
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, tree_memory(process.pid))
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode and process.stderr:
            sys.exit(process.stderr.read().decode())
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(wall=time.monotonic() - begun, cpu=cpu, memory=peak)


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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workspace", type=lambda text: Path(text).absolute())
    parser.add_argument("--channel", default="debian-core/13/edge")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    costs: dict[str, list[Cost]] = {"empty cache": [], "full cache": []}
    serve = [*COREIMAGE, "serve", "--port", "0", "--workspace", str(options.workspace)]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            line = server.stdout.readline().decode() if server.stdout else ""
            match = re.search(r"http://[0-9.]+:\d+", line)
            if match is None:
                sys.exit(f"the server says: {line}")
            for _ in range(options.runs):
                folder = Path(tempfile.mkdtemp(prefix="coreimage-bench-", dir="/var/tmp"))
                flash = [*COREIMAGE, "flash", "core", "13", "--channel", options.channel]
                flash += ["--server", match[0], "--archive-master"]
                flash += [str(options.workspace / "trust/archive-master.tar.xz")]
                os.environ |= {"HOME": str(folder), "no_proxy": "127.0.0.1"}
                os.environ |= {"XDG_STATE_HOME": str(folder / "state")}
                os.chdir(folder)
                for name, each in costs.items():
                    disk = folder / f"{name.partition(' ')[0]}.img"
                    each.append(measure([*flash, "--output", str(disk)]))
                taken, held = disk.stat().st_blocks * 512, content(disk)
                shutil.rmtree(folder)
        finally:
            server.terminate()
    print(f"{os.cpu_count()} CPUs, medians of {options.runs} run(s)\n")
    print("| | wall, s | CPU, s | memory of all processes, MiB |")
    print("|---|---:|---:|---:|")
    for name, each in costs.items():
        wall, cpu, memory = (
            statistics.median(getattr(cost, field) for cost in each)
            for field in ("wall", "cpu", "memory")
        )
        print(f"| {name} | {wall:.1f} | {cpu:.1f} | {memory:.0f} |")
    more = 100 * (taken / held - 1)
    print(
        f"\nThe disk takes {taken / 1e6:.1f} MB for {held / 1e6:.1f} MB of content: {more:.1f} %."
    )


if __name__ == "__main__":
    main()
