"""A published tree under the eyes of plain programs: gpgv, sha256sum, tar. Nothing of ours."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SIGNED_BY = {
    "image-master": "archive-master",
    "image-signing": "image-master",
    "blacklist": "image-master",
}

Seen = Mapping[str, Mapping[str, Any]]
"""What a client finds, by channel: whom it follows, and the images of each device; below "", how
many keys each keyring holds."""


def _run(*argv: str | Path, data: str | None = None) -> bytes:
    found = subprocess.run(
        argv, input=data.encode() if data else None, capture_output=True, check=False
    )
    assert found.returncode == 0, f"{argv}: {found.stdout!r} {found.stderr!r}"
    return found.stdout


@dataclass(frozen=True, kw_only=True)
class PlainClient:
    """Somebody with a pinned keyring and an empty folder, who trusts nothing else."""

    tree: Path
    pinned: Path
    folder: Path
    _rings: dict[str, Path] = field(default_factory=dict)

    def _ring(self, level: str, tarball: Path) -> None:
        ring = self.folder / f"{level}.gpg"
        ring.write_bytes(_run("tar", "-xJOf", tarball, "keyring.gpg"))
        self._rings[level] = ring

    def _verify(self, path: Path, level: str, signature: Path | None = None) -> None:
        # gpgv takes the name of a keyring without a slash for one in the home of the user.
        ring = self._rings[level].resolve()
        _run("gpgv", "--quiet", "--keyring", ring, signature or f"{path}.asc", path)

    def look(self) -> Seen:
        """Verify everything that can be reached and return it; AssertionError for what is bad."""
        self._ring("archive-master", self.pinned)
        for level, signer in _SIGNED_BY.items():
            tarball = self.tree / f"gpg/{level}.tar.xz"
            self._verify(tarball, signer)
            self._ring(level, tarball)
        self._verify(self.tree / "channels.json", "image-signing")
        channels = json.loads((self.tree / "channels.json").read_bytes())
        found = {name: self._channel(name, each) for name, each in channels.items()}
        return {"": {level: self._keys(level) for level in self._rings}, **found}

    def _keys(self, level: str) -> int:
        if not self._rings[level].stat().st_size:
            return 0
        shown = _run("gpg", "--batch", "--show-keys", "--with-colons", self._rings[level])
        return shown.count(b"\npub:") + shown.startswith(b"pub:")

    def _channel(self, name: str, channel: Mapping[str, Any]) -> Mapping[str, Any]:
        assert channel["keyrings"] == {
            level: _sum(self.tree / f"gpg/{level}.tar.xz") for level in channel["keyrings"]
        }
        return {
            "alias": channel.get("alias"),
            "hidden": channel.get("hidden", False),
            **{
                device: self._device(name, device, entry)
                for device, entry in channel["devices"].items()
            },
        }

    def _device(self, channel: str, device: str, entry: Mapping[str, Any]) -> Sequence[str]:
        level = "image-signing"
        if "keyring" in entry:
            level = f"device-signing of {channel} {device}".replace("/", "-")
            tarball = self.tree / entry["keyring"]["path"][1:]
            self._verify(tarball, "image-signing", self.tree / entry["keyring"]["signature"][1:])
            self._ring(level, tarball)
        path = self.tree / entry["index"][1:]
        assert _sum(path) == entry["sha256"], f"{path} is not what channels.json says"
        self._verify(path, level)
        index = json.loads(path.read_bytes())
        files = [each for image in index["images"] for each in image["files"]]
        for each in files:
            self._verify(self.tree / each["path"][1:], level, self.tree / each["signature"][1:])
        if files:
            sums = "".join(f"{each['checksum']}  {self.tree}{each['path']}\n" for each in files)
            _run("sha256sum", "--check", "--strict", "--quiet", data=sums)
        return [
            f"{each['type']} {each['version']} {each.get('base', '')} "
            f"{each.get('phased-percentage', '')} {each['description']}"
            for each in index["images"]
        ]


def _sum(path: Path) -> str:
    return _run("sha256sum", path).split()[0].decode()
