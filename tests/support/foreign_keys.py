"""Keys that are not the server's: the kinds of keys and signatures that must be refused."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coreimage.lib import run


class ForeignGpg:
    """A gpg home of its own with whatever keys a test makes in it."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def gpg(self, *words: str | Path) -> bytes:
        """Run gpg with an agent that ends with it, and return what it wrote."""
        home = ["--homedir", str(self.home)]
        gpg = ["gpg", *home, "--batch", "--yes", "--passphrase", ""]
        output = self.home / "output"
        try:
            # Into a file: an agent that gpg starts may keep a pipe open.
            with output.open("wb") as file:
                run.run([*gpg, *words], stdout=file, stderr=run.STDOUT, timeout=120)
            return output.read_bytes()
        finally:
            run.run(["gpgconf", *home, "--kill", "all"], check=False)

    def make(self, name: str, *, usage: str = "cert,sign", expires: str = "never") -> None:
        """Make a key."""
        self.gpg("--quick-gen-key", name, "rsa2048", usage, expires)

    def export(self, path: Path, name: str) -> Path:
        """Write a public key as a binary keyring."""
        path.write_bytes(self.gpg("--export", name))
        return path

    def sign(self, data: Path, signature: Path, *options: str) -> Path:
        """Write a detached signature."""
        self.gpg(*options, "--output", signature, "--detach-sign", data)
        return signature


@contextmanager
def foreign_gpg() -> Iterator[ForeignGpg]:
    """Yield a gpg home whose path is short enough for an agent."""
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        yield ForeignGpg(Path(home))
