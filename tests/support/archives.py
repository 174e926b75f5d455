"""A package archive of files, made by hand: Packages, Release and a real signature."""

import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import md5, sha256
from pathlib import Path

from coreimage.lib import run

PUBLISHED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Key:
    """A signing key in a GnuPG home of its own."""

    def __init__(self, home: Path) -> None:
        self._gpg = ["gpg", "--homedir", str(home), "--batch", "--no-tty"]
        self.home = home
        self.keyring = home.with_suffix(".gpg")
        home.mkdir(mode=0o700)
        key = ["--quick-gen-key", "archive", "rsa2048", "sign", "never"]
        run.run([*self._gpg, "--pinentry-mode", "loopback", "--passphrase", "", *key])
        self.keyring.write_bytes(run.run([*self._gpg, "--export"]).stdout)

    def clear_sign(self, text: bytes) -> bytes:
        return run.run([*self._gpg, "--clear-sign", "--output", "-"], data=text).stdout

    def end(self) -> None:
        run.run(["gpgconf", "--homedir", self.home, "--kill", "gpg-agent"], check=False)


@contextmanager
def signing_key(home: Path) -> Iterator[Key]:
    """Yield a key whose agent ends with the block; the path of `home` must be short."""
    key = Key(home)
    try:
        yield key
    finally:
        key.end()


class PackageArchive:
    """An archive below a folder, reached as copy:."""

    def __init__(self, root: Path, key: Key) -> None:
        self.root = root
        self.key = key
        self.uri = f"copy:{root}"

    def package(self, name: str, **fields: str) -> str:
        """Return the paragraph of a package whose file is its own name."""
        path = self.root / f"pool/{name}_1%3a2_all.deb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        lines = {
            "Package": name,
            "Version": "1:2",
            "Architecture": "all",
            "Maintainer": "Nobody <nobody@mail.example>",
            "Description": name,
            **{key.replace("_", "-"): value for key, value in fields.items()},
            "Filename": f"pool/{path.name}",
            "Size": str(len(name)),
            "SHA256": sha256(name.encode()).hexdigest(),
        }
        return "".join(f"{key}: {value}\n" for key, value in lines.items()) + "\n"

    def publish(
        self,
        packages: Mapping[str, Mapping[str, str]],
        *,
        suite: str = "trixie",
        published: datetime = PUBLISHED,
        automatic: bool = True,
        lifetime: timedelta = timedelta(days=365_00),
    ) -> Path:
        """Write a suite of packages, with their fields, and return its signed InRelease.

        From one that is not `automatic` apt takes nothing unless it is told to.
        """
        place = self.root / "dists" / suite
        index = place / "main/binary-amd64/Packages.gz"
        index.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(self.package(name, **fields) for name, fields in packages.items())
        index.write_bytes(gzip.compress(text.encode(), mtime=0))
        # Both forms are listed, as apt wants it; only the compressed one is there.
        forms = {"Packages": text.encode(), "Packages.gz": index.read_bytes()}
        sums = {
            kind: "".join(
                f" {digest(data).hexdigest()} {len(data)} main/binary-amd64/{name}\n"
                for name, data in forms.items()
            )
            for kind, digest in (("MD5Sum", md5), ("SHA256", sha256))
        }
        release = (
            f"Origin: Debian\nSuite: {suite}\nCodename: {suite}\n"
            f"Date: {format_datetime(published, usegmt=True).replace('GMT', 'UTC')}\n"
            f"Valid-Until: {format_datetime(published + lifetime, usegmt=True)}\n"
            "Architectures: amd64 all\nComponents: main\n"
            + ("" if automatic else "NotAutomatic: yes\nButAutomaticUpgrades: yes\n")
            + "".join(f"{kind}:\n{lines}" for kind, lines in sums.items())
        )
        (place / "InRelease").write_bytes(self.key.clear_sign(release.encode()))
        return place / "InRelease"
