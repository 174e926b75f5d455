"""What clients in the field accept of a channel tree, checked on its raw bytes.

Written from the wire contract with json, tarfile, hashlib and gpgv: nothing here knows how the tree
is made. Sections are those of the contract.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from coreimage.lib import openpgp, run

_PATH = re.compile(r"(/[A-Za-z0-9._+~-]+)+\Z")
_DETAIL = re.compile(r"([a-z0-9._-]+=[^ ,=]+(,[a-z0-9._-]+=[^ ,=]+)*)?\Z")
_SIGNED_BY = {
    "archive-master": "archive-master",
    "image-master": "archive-master",
    "image-signing": "image-master",
    "blacklist": "image-master",
    "device-signing": "image-signing",
}


class Tree:
    """A channel tree on disk, and space for what is unpacked of it."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self._root = root
        self._scratch = scratch
        self._rings: dict[str, Path] = {}
        self._verified: set[tuple[Path, int, str]] = set()

    def complaints(self) -> list[str]:
        """Return everything that breaks a clause, by section."""
        return list(self._complaints())

    def _complaints(self) -> Iterator[str]:
        for name in ("archive-master", "image-master", "image-signing", "blacklist"):
            yield from self._keyring(f"/gpg/{name}.tar.xz", name)
        yield from self._signature("/channels.json", ["image-signing"])
        document = json.loads((self._root / "channels.json").read_text())
        for name, channel in document.items():
            yield from self._channel(name, channel, document)

    def _keyring(self, path: str, kind: str) -> Iterator[str]:
        """Section 2, keyring tarball."""
        with tarfile.open(self._root / path[1:]) as tar:
            if sorted(tar.getnames()) != ["keyring.gpg", "keyring.json"]:
                yield f"2: {path} has members {tar.getnames()}"
                return
            members = {each.name: tar.extractfile(each) for each in tar.getmembers()}
            text, ring = (members[name] for name in ("keyring.json", "keyring.gpg"))
            assert text is not None
            assert ring is not None
            said = text.read().decode()
            (self._scratch / f"{path.replace('/', '-')}.gpg").write_bytes(ring.read())
        self._rings[path if kind == "device-signing" else kind] = (
            self._scratch / f"{path.replace('/', '-')}.gpg"
        )
        if not re.search(rf'^    "type": "{kind}"', said, re.MULTILINE):
            yield f"2: old recoveries do not find the type in {path}"
        yield from self._signature(path, [_SIGNED_BY[kind]])

    def _signature(self, path: str, rings: list[str]) -> Iterator[str]:
        """Section 2: one signature, by a primary key of one of the keyrings."""
        data = self._root / path[1:]
        signature = Path(f"{data}.asc")
        if not data.is_file() or not signature.is_file():
            yield f"1: {path} or its signature is missing"
            return
        key = (data.resolve(), signature.stat().st_mtime_ns, rings[0])
        if key in self._verified:
            return
        signer = openpgp.issuer(signature.read_bytes(), name=path)  # refuses all but one signature
        keys = [key for ring in rings for key in openpgp.read_keys(self._rings[ring]).primary]
        if signer not in keys:
            yield f"2: {path} is signed by {signer}, not by a primary key of {rings}"
        words = [word for ring in rings for word in ("--keyring", str(self._rings[ring]))]
        if run.run(["gpgv", *words, signature, data], check=False).status:
            yield f"2: {path} does not verify"
        self._verified.add(key)

    def _channel(self, name: str, channel: Mapping[str, Any], document: Any) -> Iterator[str]:
        """Section 3."""
        if name.startswith("_") or {"keys", "converters"} & set(name.split("/")):
            yield f"3: clients cannot digest the name '{name}'"
        if type(channel.get("hidden", False)) is not bool:
            yield f"3: 'hidden' of {name}"
        for key in ("alias", "redirect"):
            if key in channel and channel[key] not in document:
                yield f"3: '{key}' of {name} leads nowhere"
        if "redirect" in channel and channel["devices"] != document[channel["redirect"]]["devices"]:
            yield f"3: the redirect {name} does not carry its target's devices"
        for device, entry in channel["devices"].items():
            rings = ["image-signing"]
            if keyring := entry.get("keyring"):
                if keyring["signature"] != f"{keyring['path']}.asc":
                    yield f"3: the keyring's signature of {device} in {name}"
                yield from self._keyring(keyring["path"], "device-signing")
                rings.append(keyring["path"])
            yield from self._bound(entry, f"{device} in {name}")
            yield from self._index(entry["index"], rings)
            if "alias" in channel:
                yield from self._alias(name, device, channel["alias"], document)

    def _bound(self, entry: Mapping[str, Any], where: str) -> Iterator[str]:
        data = (self._root / entry["index"][1:]).read_bytes()
        if (hashlib.sha256(data).hexdigest(), len(data)) != (entry["sha256"], entry["size"]):
            yield f"the index of {where} is not the one that is bound"

    def _alias(self, name: str, device: str, target: str, document: Any) -> Iterator[str]:
        """Section 3, alias: indexes and version tarballs of its own, payloads of its target."""
        ours, theirs = (
            self._read(document[each]["devices"][device]["index"])["images"]
            for each in (name, target)
        )
        if [each["version"] for each in ours] != [each["version"] for each in theirs]:
            yield f"3: the alias {name} has other images of {device} than {target}"
        for mine, other in zip(ours, theirs, strict=True):
            if mine["files"][:-1] != other["files"][:-1]:
                yield f"3: image {mine['version']} of the alias {name} has other payload"
            said = self._told(mine["files"][-1]["path"])
            expected = (name, device, str(mine["version"]), target)
            keys = ("channel", "device", "build_number", "channel_target")
            if tuple(said.get(key) for key in keys) != expected:
                yield f"3: image {mine['version']} of the alias {name} tells {said}"

    def _told(self, path: str) -> dict[str, str]:
        with tarfile.open(self._root / path[1:]) as tar:
            file = tar.extractfile("system/etc/system-image/channel.ini")
            assert file is not None
            lines = file.read().decode().splitlines()[1:]
        return {key: value for key, _, value in (line.partition(": ") for line in lines)}

    def _read(self, path: str) -> Any:
        return json.loads((self._root / path[1:]).read_text())

    def _index(self, path: str, rings: list[str]) -> Iterator[str]:
        """Section 4."""
        if not _PATH.match(path):
            yield f"3: the index '{path}' is not root-relative"
        yield from self._signature(path, rings)
        document = self._read(path)
        datetime.strptime(document["global"]["generated_at"], "%a %b %d %H:%M:%S UTC %Y")  # noqa: DTZ007
        images = document["images"]
        newest = max((image["version"] for image in images), default=0)
        keys = [(image["type"], image["version"], image.get("base")) for image in images]
        if len(set(keys)) != len(keys):
            yield f"4: {path} lists an image twice"
        places = {(file["path"], file["checksum"]) for image in images for file in image["files"]}
        names = [place.rpartition("/")[2] for place, _ in places]
        if len(set(names)) != len(names):
            yield f"4: two files of {path} have one name, and a client may want both"
        for image in images:
            where = f"image {image['version']} of {path}"
            yield from self._image(image, newest, where)
            for file in image["files"]:
                yield from self._file(file, where)
                yield from self._signature(file["path"], rings)

    def _image(self, image: Mapping[str, Any], newest: int, where: str) -> Iterator[str]:
        kind, version = image["type"], image["version"]
        if kind not in ("full", "delta") or (kind == "delta") != ("base" in image):
            yield f"4: type and base of {where}"
        for key, low, high in (
            ("version", 1, 65535),
            ("base", 1, 65535),
            ("minversion", 0, 65535),
            ("phased-percentage", 0, 100),
        ):
            value = image.get(key, low)
            if type(value) is not int or not low <= value <= high:
                yield f"4: '{key}' of {where} is {value!r}"
        if "minversion" in image and kind != "full":
            yield f"4: {where} is a delta with a minversion"
        share = image.get("phased-percentage")
        withdrawn = share == 0 and "withdrawn" in image
        if share is not None and version != newest and not withdrawn:
            yield f"4: {where} is not the newest and has a phased percentage"
        words = [value for key, value in image.items() if key.startswith("description")]
        if not all(isinstance(word, str) for word in words) or "description" not in image:
            yield f"4: the descriptions of {where}"
        if not _DETAIL.match(image["version_detail"]):
            yield f"4: the version_detail of {where} is '{image['version_detail']}'"
        orders = [file["order"] for file in image["files"]]
        if orders != sorted(set(orders)):
            yield f"4: the files of {where} are not in the order of applying"
        names = [file["path"].rpartition("/")[2] for file in image["files"]]
        if len(set(names)) != len(names):
            yield f"4: two files of {where} have one name"

    def _file(self, file: Mapping[str, Any], where: str) -> Iterator[str]:
        path = file["path"]
        if not _PATH.match(path) or file["signature"] != f"{path}.asc":
            yield f"4: the path or signature of '{path}' in {where}"
        data = self._root / path[1:]
        if not data.is_file():
            yield f"1: '{path}' of {where} is missing"
            return
        content = data.read_bytes()
        found = (hashlib.sha256(content).hexdigest(), len(content))
        if found != (file["checksum"], file["size"]):
            yield f"4: checksum or size of '{path}' in {where}"
