"""The product as its users run it: the command line in child processes."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coreimage.lib import run
from coreimage.lib.run import Completed, Process

SOURCES = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The command line, run in a folder. `prefix` is put before it, as sudo or unshare are."""

    folder: Path
    python: Path = Path(sys.executable)
    prefix: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def argv(self, *words: object, module: str = "coreimage") -> list[str]:
        """Return the command that runs the product with `words`."""
        return [*self.prefix, str(self.python), "-m", module, *(str(word) for word in words)]

    def run(self, *words: object, status: int = 0, timeout: float = 900) -> Completed:
        """Run a command to its end and check how it ended."""
        done = run.run(
            self.argv(*words),
            cwd=self.folder,
            env=self.environment,
            check=False,
            timeout=timeout,
        )
        said = done.stderr.decode(errors="replace")
        assert done.status == status, f"exit status {done.status}, not {status}:\n{said}"
        return done

    def json(self, *words: object) -> Any:
        """Run a command with --json and return what it printed."""
        return json.loads(self.run(*words, "--json").stdout)

    def refused(self, *words: object, status: int) -> str:
        """Run a command that must be refused; return its message, which must have a hint."""
        said = self.run(*words, status=status).stderr.decode()
        assert re.search(r"^coreimage: error: ", said, re.MULTILINE), said
        assert "Traceback" not in said
        return said

    @contextmanager
    def started(self, *words: object) -> Iterator[Process[bytes]]:
        """Start a command whose stderr is read by the caller; it has ended afterwards."""
        with run.start(
            self.argv(*words),
            cwd=self.folder,
            env=self.environment,
            stdout=run.DEVNULL,
            stderr=run.PIPE,
        ) as process:
            yield process
            run.terminate(process)


def sums(folder: Path, pattern: str) -> dict[str, str]:
    """Return the sha256 of files by name."""
    paths = sorted(folder.glob(pattern))
    assert paths, f"nothing matches {folder}/{pattern}"
    listed = run.run(["sha256sum", *paths], env={**os.environ, "LC_ALL": "C"}).stdout.decode()
    return {
        Path(name).name: digest for digest, name in (line.split() for line in listed.splitlines())
    }
