"""Killing a program in the middle: at each system call by which it changes something on disk."""

import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Of Linux on all architectures: strace passes over names that this one does not have.
CALLS = (
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "ftruncate", "truncate", "fallocate"),
    *("fsync", "fdatasync", "sync", "syncfs", "chmod", "fchmod", "fchmodat", "utimensat"),
    *("chown", "fchown", "lchown", "fchownat", "setxattr", "fsetxattr"),
)
_SET = ",".join(f"?{call}" for call in CALLS)
_LINE = re.compile(r"([a-z0-9_]+)\(.*")
_KILLED = -9


@dataclass(frozen=True, kw_only=True)
class Step:
    """A system call of a program: the `number`th of its name, counted from 1."""

    call: str
    number: int
    text: str

    def __str__(self) -> str:
        """Show it as strace does."""
        return f"{self.call} {self.number}: {self.text}"


def steps(argv: Sequence[str | Path], log: Path) -> list[Step]:
    """Run a program and return the calls by which it itself changed something."""
    subprocess.run(
        ["strace", "-o", log, "-e", f"trace={_SET}", *argv], check=True, capture_output=True
    )
    counts: Counter[str] = Counter()
    found = []
    for line in log.read_text(errors="replace").splitlines():
        if match := _LINE.match(line):
            counts[match[1]] += 1
            found.append(Step(call=match[1], number=counts[match[1]], text=line))
    return found


def killed_at(argv: Sequence[str | Path], step: Step) -> bool:
    """Run a program that is killed just before a step; False when it never came to it."""
    inject = f"inject={step.call}:signal=KILL:when={step.number}"
    found = subprocess.run(
        ["strace", "-o", "/dev/null", "-e", f"trace={step.call}", "-e", inject, *argv],
        check=False,
        capture_output=True,
    )
    assert found.returncode in (0, _KILLED), found.stderr.decode()
    return found.returncode == _KILLED
