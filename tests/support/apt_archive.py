"""A small signed package archive, as somebody outside would keep one."""

import functools
import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from coreimage.lib import run


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A signing key in a home of its own."""

    home: Path

    @classmethod
    def make(cls, home: Path, *, expires: str = "0", born: str = "20260101T000000") -> "Key":
        """Make a key that was made at `born` and `expires` so long after, such as "1d"."""
        home.mkdir(mode=0o700)
        key = cls(home=home)
        identity = ["--quick-generate-key", "archive <archive@keys.example>", "ed25519", "sign"]
        key.gpg("--faked-system-time", f"{born}!", *identity, expires)
        return key

    def gpg(self, *words: str) -> bytes:
        """Run gpg with the key and return what it wrote."""
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--passphrase", ""]
        output = self.home / "output"
        try:
            # Into a file: an agent that gpg starts may keep a pipe open.
            with output.open("wb") as file:
                run.run([*argv, "--pinentry-mode", "loopback", *words], stdout=file)
            return output.read_bytes()
        finally:
            run.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)

    def public(self, *, armoured: bool) -> bytes:
        """Return the public key."""
        return self.gpg(*(["--armor"] if armoured else []), "--export")


@dataclass(frozen=True, slots=True, kw_only=True)
class AptArchive:
    """An archive below a folder: debs in pool/, one suite."""

    root: Path
    suite: str
    origin: str = "Local"

    def add(
        self,
        name: str,
        *,
        version: str = "1.0",
        fields: Mapping[str, str] | None = None,
        control: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
    ) -> None:
        """Add a package with control fields, files of the control archive, and its own files."""
        tree = self.root.parent / f"{name}_{version}"
        described = {
            "Package": name,
            "Version": version,
            "Architecture": "all",
            "Maintainer": "Nobody <nobody@packages.example>",
            "Description": "a package of the tests",
            **(fields or {}),
        }
        files = {
            "DEBIAN/control": "".join(f"{key}: {value}\n" for key, value in described.items()),
            **{f"DEBIAN/{key}": text for key, text in (control or {}).items()},
            **(data or {}),
        }
        for path, text in files.items():
            target = tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(0o755 if text.startswith("#!") else 0o644)
        for folder in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        pool = self.root / "pool"
        pool.mkdir(parents=True, exist_ok=True)
        run.run(["dpkg-deb", "--root-owner-group", "--build", tree, pool / f"{name}_{version}.deb"])

    def publish(self, key: Key, *, arch: str, born: str | None = None) -> None:
        """Write and sign the indices; `born` is the time at which it is signed."""
        place = self.root / "dists" / self.suite
        listed = place / f"main/binary-{arch}"
        listed.mkdir(parents=True, exist_ok=True)
        packages = "".join(
            run.run(["dpkg-deb", "--field", deb]).stdout.decode()
            + f"Filename: pool/{deb.name}\nSize: {deb.stat().st_size}\n"
            + f"SHA256: {hashlib.sha256(deb.read_bytes()).hexdigest()}\n\n"
            for deb in sorted((self.root / "pool").glob("*.deb"))
        ).encode()
        (listed / "Packages").write_bytes(packages)
        (listed / "Packages.gz").write_bytes(gzip.compress(packages, mtime=0))
        sums = "".join(
            f" {hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_size} "
            f"{path.relative_to(place)}\n"
            for path in sorted(listed.iterdir())
        )
        date = format_datetime(datetime(2026, 1, 2, tzinfo=UTC), usegmt=True)
        (place / "Release").write_text(
            f"Origin: {self.origin}\nSuite: {self.suite}\nCodename: {self.suite}\nDate: {date}\n"
            f"Architectures: {arch}\nComponents: main\nSHA256:\n{sums}"
        )
        then = ["--faked-system-time", f"{born}!"] if born else []
        (place / "InRelease").unlink(missing_ok=True)
        signed = ["--output", str(place / "InRelease"), "--clearsign", str(place / "Release")]
        key.gpg(*then, *signed)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback and yield its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
