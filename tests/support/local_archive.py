"""Package archives that tests make and sign: a pool of packages, suites with signed indices."""

import functools
import http.server
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha256
from pathlib import Path

from coreimage.lib import run
from coreimage.lib.files import sha256_of
from tests.support.foreign_keys import ForeignGpg

_KEY = "Archive of the tests <archive@images.example>"


@dataclass(kw_only=True)
class LocalArchive:
    """An archive below `root`; `keyring` is what its clients trust."""

    root: Path
    gpg: ForeignGpg
    date: datetime = datetime(2015, 5, 11, 12, 0, tzinfo=UTC)
    _published: int = 0
    _stanzas: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gpg.make(_KEY)
        (self.root / "pool").mkdir(parents=True)
        self.gpg.export(self.keyring, _KEY)

    @property
    def keyring(self) -> Path:
        """The archive's public key."""
        return self.root / "archive.gpg"

    def take(self, package: Path) -> None:
        """Put a package into the pool; a newer one of the same name takes its place."""
        name, _, rest = package.name.partition("_")
        version, _, arch = rest.removesuffix(".deb").rpartition("_")
        # As in every pool, an epoch is no part of the file's name.
        version = version.rpartition("%3a")[2]
        target = self.root / f"pool/{name}_{version}_{arch}.deb"
        shutil.copyfile(package, target)
        control = run.run(["dpkg-deb", "--field", target]).stdout.decode()
        stanza = (
            f"{control.rstrip()}\nFilename: {target.relative_to(self.root)}\n"
            f"Size: {target.stat().st_size}\nSHA256: {sha256_of(target)}\n"
        )
        self._stanzas[name] = (arch, stanza)

    def make(
        self,
        scratch: Path,
        name: str,
        version: str,
        *,
        files: Mapping[str, str] | None = None,
        **fields: str,
    ) -> None:
        """Make a package of files, by default one that says its version, and take it."""
        tree = scratch / f"{name}_{version}"
        for path, text in (files or {f"usr/share/made-by-a-test/{name}": f"{version}\n"}).items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        control = {
            "Package": name,
            "Version": version,
            "Architecture": "all",
            "Maintainer": "Tests <tests@images.example>",
            "Description": "made by a test",
            **fields,
        }
        (tree / "DEBIAN").mkdir()
        text = "".join(f"{key}: {value}\n" for key, value in control.items())
        (tree / "DEBIAN/control").write_text(text)
        package = scratch / f"{name}_{version}_all.deb"
        run.run(["dpkg-deb", "--root-owner-group", "--build", tree, package])
        self.take(package)

    def publish(self, suite: str, *, arches: Sequence[str] = ("amd64",)) -> None:
        """Write the suite's indices and sign them."""
        folder = self.root / "dists" / suite
        indices: dict[str, bytes] = {}
        for arch in arches:
            text = "\n".join(
                stanza for own, stanza in self._stanzas.values() if own in (arch, "all")
            )
            indices[f"main/binary-{arch}/Packages"] = text.encode()
        for name, content in indices.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        release = folder / "Release"
        release.write_text(_release(suite, arches, self.date, indices))
        self.gpg.gpg("--armor", "--output", folder / "InRelease", "--clear-sign", release)
        release.unlink()
        # Servers tell apt in whole seconds what is newer.
        self._published = max(int(time.time()), self._published + 1)
        for name in ("InRelease", *indices):
            os.utime(folder / name, (self._published, self._published))


def _release(
    suite: str, arches: Sequence[str], date: datetime, indices: Mapping[str, bytes]
) -> str:
    fields = {
        "Origin": "Tests",
        "Suite": suite,
        "Codename": suite,
        "Date": format_datetime(date.astimezone(UTC), usegmt=True),
        "Architectures": " ".join(arches),
        "Components": "main",
        "SHA256": "",
    }
    lines = [f"{key}: {value}".rstrip() for key, value in fields.items()]
    lines += [
        f" {sha256(content).hexdigest()} {len(content)} {name}" for name, content in indices.items()
    ]
    return "\n".join(lines) + "\n"


def download(folder: Path, packages: Sequence[str]) -> list[Path]:
    """Fetch packages and those of the smallest system from the host's archive; return them all."""
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True)
    options = {
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
        "Dir::Cache": folder,
        "Dir::State::Lists": folder / "lists",
        "Dir::State::status": "/dev/null",
    }
    words = [word for key, value in options.items() for word in ("--option", f"{key}={value}")]
    run.run(["apt-get", *words, "--quiet", "update"])
    wanted = ["?essential", "?priority(required)", "apt", *packages]
    run.run(["apt-get", *words, "--quiet", "--yes", "--download-only", "install", *wanted])
    return sorted((folder / "archives").glob("*.deb"))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback and yield its URL."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
