"""index.json: the images of one device in one channel.

Unknown keys are kept and written back. Source: wiki.ubuntu.com/ImageBasedUpgrades/Server, and
the limits that real clients enforce.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from coreimage.errors import DataError, NotFoundError
from coreimage.model.document import parse_object

MAX_VERSION = 65535
_MAX_ORDER = (1 << 31) - 1
_MAX_SIZE = (1 << 63) - 1
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
# A path is given to old recoveries in a command line that is split at blanks.
_PATH = re.compile(r"/[A-Za-z0-9._+:/~-]+\Z")
_FULL_PERCENTAGE = 100
# Clients take description-de for a translation as well; we write description_de.
_TRANSLATION = re.compile(r"description[-_](?P<language>[A-Za-z0-9_@.-]+)\Z")
_IMAGE_KEYS = frozenset(
    {
        *("type", "version", "base", "files", "description", "version_detail", "minversion"),
        *("phased-percentage", "bootme", "withdrawn", "tags", "own_minversion"),
    }
)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = re.compile(
    rf"(?:{'|'.join(_DAYS)}) (?P<month>[A-Z][a-z]{{2}}) +(?P<day>[0-9]{{1,2}}) "
    r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2}) UTC (?P<year>[0-9]{4})"
)


class ImageType(StrEnum):
    """A full image replaces the system, a delta changes it from its base."""

    FULL = "full"
    DELTA = "delta"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One payload tarball of an image; `order` ascending is the order of applying."""

    order: int
    path: str
    checksum: str
    size: int
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def signature(self) -> str:
        """The path of the detached signature, always beside the file."""
        return f"{self.path}.asc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image: a version, its type, and its files in the order of applying.

    `translations` are further descriptions by their language (de, pt_BR). `minversion` is the
    lowest build that a full image is offered to. `phased_percentage` is the share of devices, of
    100, that are offered the image: none says all, 0 nobody; only the newest version may have one.
    `bootme` asks for a reboot before any further image. `withdrawn` is the reason why nobody is
    offered the image any more, and `tags` are names that people gave it; old clients ignore both.

    A full image that is `kept_from_old_clients` is written with its own version as minversion,
    which no device can meet; ours go by the `minversion` beside it. System-image clients may put
    deltas on top of a full image, which their recoveries get wrong.
    """

    type: ImageType
    version: int
    files: Sequence[ImageFile]
    base: int | None = None
    description: str = ""
    translations: Mapping[str, str] = field(default_factory=dict)
    version_detail: str = ""
    minversion: int | None = None
    kept_from_old_clients: bool = False
    phased_percentage: int | None = None
    bootme: bool = False
    withdrawn: str | None = None
    tags: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def percentage(self) -> int:
        """The share of devices, of 100, that are offered the image."""
        return _FULL_PERCENTAGE if self.phased_percentage is None else self.phased_percentage

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The whole of index.json; `extra` belongs to 'global', `document_extra` beside it."""

    generated_at: datetime
    images: Sequence[Image] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    document_extra: Mapping[str, Any] = field(default_factory=dict)

    def newest_full(self) -> Image | None:
        """Return the full image with the highest version, if there is one."""
        fulls = [image for image in self.images if image.type is ImageType.FULL]
        return max(fulls, key=lambda image: image.version, default=None)

    def full(self, revision: int | None) -> Image:
        """Return a full image: an absolute version, one relative to the newest (0, -1), or it.

        Raises NotFoundError that names the versions there are.
        """
        versions = sorted(image.version for image in self.images if image.type is ImageType.FULL)
        wanted = revision
        if revision is None or revision <= 0:
            position = len(versions) - 1 + (revision or 0)
            wanted = versions[position] if 0 <= position < len(versions) else None
        for image in self.images:
            if image.type is ImageType.FULL and image.version == wanted:
                return image
        raise NotFoundError(
            "the channel has no image yet"
            if not versions
            else f"the channel has no full image of revision {revision}",
            hint="" if not versions else "its versions are " + ", ".join(map(str, versions)),
        )

    def to_json(self) -> str:
        """Return the text of index.json."""
        document = {
            **self.document_extra,
            "global": {**self.extra, "generated_at": format_time(self.generated_at)},
            "images": [_image_fields(image) for image in self.images],
        }
        return json.dumps(document, indent=4, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Index":
        """Parse index.json; raises DataError for whatever a client would stumble over."""
        document = parse_object(text, name="index.json")
        if not isinstance(document.get("global"), dict) or not isinstance(
            document.get("images"), list
        ):
            raise DataError("index.json needs the object 'global' and the list 'images'")
        head = document["global"]
        images = [_image(fields) for fields in document["images"]]
        keys = [(image.type, image.version, image.base) for image in images]
        if len(set(keys)) != len(keys):
            raise DataError("index.json lists an image twice")
        return cls(
            generated_at=parse_time(head.get("generated_at")),
            images=images,
            extra={key: value for key, value in head.items() if key != "generated_at"},
            document_extra={
                key: value for key, value in document.items() if key not in ("global", "images")
            },
        )


def format_time(when: datetime) -> str:
    """Return a time as clients parse it, whatever the locale: Mon Nov 23 14:46:23 UTC 2026."""
    utc = when.astimezone(UTC)
    return (
        f"{_DAYS[utc.weekday()]} {_MONTHS[utc.month - 1]} {utc.day:02d} "
        f"{utc:%H:%M:%S} UTC {utc.year:04d}"
    )


def parse_time(text: Any) -> datetime:
    """Parse what `format_time` returns; raises DataError."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    try:
        if match is None:
            raise ValueError("another form")
        month = _MONTHS.index(match["month"]) + 1
        day, hour, minute, second, year = (
            int(match[part]) for part in ("day", "hour", "minute", "second", "year")
        )
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise DataError(
            f"index.json: 'generated_at' is {text!r}, expected 'Mon Nov 23 14:46:23 UTC 2026'"
        ) from error


def _integer(fields: Mapping[str, Any], key: str, low: int, high: int, where: str) -> int:
    value = fields.get(key)
    if type(value) is not int or not low <= value <= high:
        raise DataError(
            f"index.json: '{key}' of {where} is {value!r}, expected from {low} to {high}"
        )
    return value


def _text(fields: Mapping[str, Any], key: str, where: str) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise DataError(f"index.json: '{key}' of {where} is {value!r}, expected text")
    return value


def _image(fields: Any) -> Image:
    if not isinstance(fields, dict):
        raise DataError("index.json: an image is not an object")
    version = _integer(fields, "version", 1, MAX_VERSION, "an image")
    where = f"image {version}"
    try:
        kind = ImageType(str(fields.get("type")))
    except ValueError:
        raise DataError(f"index.json: 'type' of {where} is {fields.get('type')!r}") from None
    if (kind is ImageType.DELTA) != ("base" in fields):
        raise DataError(f"index.json: {where} is {kind} and 'base' does not fit that")
    base = _integer(fields, "base", 1, MAX_VERSION, where) if kind is ImageType.DELTA else None
    if not isinstance(fields.get("files"), list) or not fields["files"]:
        raise DataError(f"index.json: {where} has no files")
    files = sorted((_file(each, where) for each in fields["files"]), key=lambda file: file.order)
    if len({file.order for file in files}) != len(files):
        raise DataError(f"index.json: two files of {where} have the same 'order'")
    translations = {
        match["language"]: _text(fields, key, where)
        for key in fields
        if (match := _TRANSLATION.match(key))
    }
    minversion = _optional(fields, "minversion", MAX_VERSION, where)
    kept = kind is ImageType.FULL and minversion is not None and minversion >= version
    own = _optional(fields, "own_minversion", MAX_VERSION, where)
    return Image(
        type=kind,
        version=version,
        base=base,
        files=files,
        description=_text(fields, "description", where),
        translations=translations,
        version_detail=_text(fields, "version_detail", where),
        minversion=own if kept else minversion,
        kept_from_old_clients=kept,
        phased_percentage=_optional(fields, "phased-percentage", _FULL_PERCENTAGE, where),
        bootme=_flag(fields, "bootme", where),
        withdrawn=_text(fields, "withdrawn", where) if "withdrawn" in fields else None,
        tags=_words(fields, "tags", where),
        extra={
            key: value
            for key, value in fields.items()
            if key not in _IMAGE_KEYS and not _TRANSLATION.match(key)
        },
    )


def _optional(fields: Mapping[str, Any], key: str, high: int, where: str) -> int | None:
    return _integer(fields, key, 0, high, where) if key in fields else None


def _flag(fields: Mapping[str, Any], key: str, where: str) -> bool:
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise DataError(f"index.json: '{key}' of {where} is {value!r}, expected true or false")
    return value


def _words(fields: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = fields.get(key, [])
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise DataError(f"index.json: '{key}' of {where} is {value!r}, expected a list of words")
    return tuple(value)


def check_path(path: Any) -> str:
    """Return a path inside the tree, root-relative; DataError for any that could leave it."""
    if (
        not isinstance(path, str)
        or not _PATH.match(path)
        or any(part in ("", ".", "..") for part in path[1:].split("/"))
    ):
        raise DataError(f"{path!r} is not a path inside the channel tree")
    return path


def _file(fields: Any, where: str) -> ImageFile:
    if not isinstance(fields, dict):
        raise DataError(f"index.json: a file of {where} is not an object")
    path = check_path(fields.get("path"))
    if fields.get("signature") != f"{path}.asc":
        raise DataError(f"index.json: the signature of '{path}' is not '{path}.asc'")
    checksum = fields.get("checksum")
    if not isinstance(checksum, str) or not _SHA256.match(checksum):
        raise DataError(f"index.json: 'checksum' of '{path}' is not a sha256 in lower-case hex")
    known = ("order", "path", "signature", "checksum", "size")
    return ImageFile(
        order=_integer(fields, "order", 0, _MAX_ORDER, f"'{path}'"),
        path=path,
        checksum=checksum,
        size=_integer(fields, "size", 0, _MAX_SIZE, f"'{path}'"),
        extra={key: value for key, value in fields.items() if key not in known},
    )


def _image_fields(image: Image) -> dict[str, Any]:
    kept = image.kept_from_old_clients
    optional = {
        "base": image.base,
        "minversion": image.version if kept else image.minversion,
        "own_minversion": image.minversion if kept else None,
        "phased-percentage": image.phased_percentage,
        "bootme": image.bootme or None,
        "withdrawn": image.withdrawn,
        "tags": list(image.tags) or None,
    }
    return {
        **image.extra,
        **{f"description_{language}": text for language, text in image.translations.items()},
        **{key: value for key, value in optional.items() if value is not None},
        "type": image.type.value,
        "version": image.version,
        "description": image.description,
        "version_detail": image.version_detail,
        "files": [
            {
                **file.extra,
                "order": file.order,
                "path": file.path,
                "signature": file.signature,
                "checksum": file.checksum,
                "size": file.size,
            }
            for file in image.files
        ],
    }
