"""A published tree under the eyes of plain programs: gpgv, sha256sum, tar. Nothing of ours."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
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
    """Somebody with a pinned keyring and an empty folder, who trusts nothing else.

    `fetch` returns where a file of the tree lies, given its root-relative path.
    """

    fetch: Callable[[str], Path]
    pinned: Path
    folder: Path
    _rings: dict[str, Path] = field(default_factory=dict)

    def _ring(self, level: str, tarball: Path) -> None:
        ring = self.folder / f"{level}.gpg"
        ring.write_bytes(_run("tar", "-xJOf", tarball, "keyring.gpg"))
        self._rings[level] = ring

    def _verified(self, path: str, level: str, signature: str = "") -> Path:
        found, beside = self.fetch(path), self.fetch(signature or f"{path}.asc")
        # gpgv takes the name of a keyring without a slash for one in the home of the user.
        _run("gpgv", "--quiet", "--keyring", self._rings[level].resolve(), beside, found)
        return found

    def look(self) -> Seen:
        """Verify everything that can be reached and return it; AssertionError for what is bad."""
        self._ring("archive-master", self.pinned)
        for level, signer in _SIGNED_BY.items():
            self._ring(level, self._verified(f"/gpg/{level}.tar.xz", signer))
        channels = json.loads(self._verified("/channels.json", "image-signing").read_bytes())
        found = {name: self._channel(name, each) for name, each in channels.items()}
        return {"": {level: self._keys(level) for level in self._rings}, **found}

    def _keys(self, level: str) -> int:
        if not self._rings[level].stat().st_size:
            return 0
        shown = _run("gpg", "--batch", "--show-keys", "--with-colons", self._rings[level])
        return shown.count(b"\npub:") + shown.startswith(b"pub:")

    def _channel(self, name: str, channel: Mapping[str, Any]) -> Mapping[str, Any]:
        assert channel["keyrings"] == {
            level: _sum(self.fetch(f"/gpg/{level}.tar.xz")) for level in channel["keyrings"]
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
            keyring = entry["keyring"]
            tarball = self._verified(keyring["path"], "image-signing", keyring["signature"])
            self._ring(level, tarball)
        path = self._verified(entry["index"], level)
        assert _sum(path) == entry["sha256"], f"{path} is not what channels.json says"
        index = json.loads(path.read_bytes())
        files = [each for image in index["images"] for each in image["files"]]
        sums = "".join(
            f"{each['checksum']}  {self._verified(each['path'], level, each['signature'])}\n"
            for each in files
        )
        if sums:
            _run("sha256sum", "--check", "--strict", "--quiet", data=sums)
        return [
            f"{each['type']} {each['version']} {each.get('base', '')} "
            f"{each.get('phased-percentage', '')} {each['description']}"
            for each in index["images"]
        ]


def _sum(path: Path) -> str:
    return _run("sha256sum", path).split()[0].decode()
