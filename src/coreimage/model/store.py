"""A store: OEM packages by name, as one signed index beside immutable archives.

/store/<id>/index.json(.asc)            links to the current state
/store/<id>/states/<serial>/            one pair for each state
/store/<id>/<name>_<version>-<sha256>.tar.xz(.asc)
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coreimage.errors import DataError
from coreimage.model.document import parse_object
from coreimage.model.index import ImageFile, check_path

DEFAULT_STORE = "default"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~-]*\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePackage:
    """One version of a package; `path` begins at the root of the tree, `size` is in bytes."""

    name: str
    version: str
    architecture: str
    path: str
    sha256: str
    size: int
    description: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image_file(self) -> ImageFile:
        """The archive in the words of an image's index, for whoever downloads either."""
        return ImageFile(order=0, path=self.path, checksum=self.sha256, size=self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIndex:
    """The whole of a store's index, packages in the order of their publication.

    `generated_at` and `expires` are in UNIX seconds; `serial` counts the states. `withdrawn` has
    the sha256 of versions that are no longer offered, under "NAME VERSION": they do not change.
    """

    store: str
    serial: int
    generated_at: int
    expires: int
    packages: Sequence[StorePackage] = ()
    withdrawn: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def find(self, name: str, version: str | None = None) -> StorePackage | None:
        """Return the version that was asked for, or the one that was published last."""
        found = [
            each for each in self.packages if each.name == name and version in (None, each.version)
        ]
        return found[-1] if found else None

    def to_json(self) -> str:
        """Return the text of the index."""
        document = {
            **self.extra,
            "store": self.store,
            "serial": self.serial,
            "generated_at": self.generated_at,
            "expires": self.expires,
            **({"withdrawn": dict(self.withdrawn)} if self.withdrawn else {}),
            "packages": [_fields(each) for each in self.packages],
        }
        return json.dumps(document, indent=4, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "StoreIndex":
        """Parse an index; raises DataError that names the key."""
        document = parse_object(text, name="the store's index")
        packages = document.pop("packages", None)
        if not isinstance(packages, list):
            raise DataError("the store's index has no list 'packages'")
        found = tuple(_package(each) for each in packages)
        if len({(each.name, each.version) for each in found}) != len(found):
            raise DataError("the store's index lists a package twice")
        return cls(
            store=check_store_id(document.pop("store", None)),
            serial=_number(document, "serial"),
            generated_at=_number(document, "generated_at"),
            expires=_number(document, "expires"),
            packages=found,
            withdrawn=_withdrawn(document.pop("withdrawn", {})),
            extra=document,
        )


def check_store_id(store: Any) -> str:
    """Return the name of a store; raises DataError for what is none."""
    if not isinstance(store, str) or not _ID.match(store):
        raise DataError(f"{store!r} cannot be the id of a store")
    return store


def index_path(store: str) -> str:
    """Return where the index of a store lies in the tree."""
    return f"/store/{store}/index.json"


def _number(fields: dict[str, Any], key: str) -> int:
    value = fields.pop(key, None)
    if type(value) is not int or not 0 <= value <= _MAX:
        raise DataError(f"the store's index: '{key}' is {value!r}, expected a whole number")
    return value


def _withdrawn(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(
        isinstance(each, str) and _SHA256.match(each) for each in value.values()
    ):
        raise DataError("the store's index: 'withdrawn' is not an object of digests")
    return value


def _word(fields: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = fields.pop(key, None)
    if not isinstance(value, str) or not pattern.match(value):
        raise DataError(f"the store's index: '{key}' of a package is {value!r}")
    return value


def _package(fields: Any) -> StorePackage:
    if not isinstance(fields, dict):
        raise DataError("the store's index: a package is not an object")
    rest = dict(fields)
    return StorePackage(
        name=_word(rest, "name", _WORD),
        version=_word(rest, "version", _WORD),
        architecture=_word(rest, "architecture", _WORD),
        path=check_path(rest.pop("path", None)),
        sha256=_word(rest, "sha256", _SHA256),
        size=_number(rest, "size"),
        description=str(rest.pop("description", "")),
        extra=rest,
    )


def _fields(package: StorePackage) -> dict[str, Any]:
    names = ("name", "version", "architecture", "path", "sha256", "size", "description")
    return {**package.extra, **{name: getattr(package, name) for name in names}}
