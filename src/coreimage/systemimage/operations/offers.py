"""How images are offered: to which share of devices, with which words, or no longer.

Every change is one transaction; channels that follow take it over in the same step. Returned are
the names of the channels that changed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, DataError, NotFoundError
from coreimage.model.index import Image, ImageType, Index
from coreimage.systemimage.tree import editing
from coreimage.systemimage.tree.images import check_minversion

FULL_PERCENTAGE = 100
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Za-z0-9]+)*(@[a-z]+)?\Z")
_TAG_DETAIL = "tag="


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The device of a channel whose images are to be changed; `dry_run` only finds out how."""

    workspace: Workspace
    channel: str
    device: str
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What is to be changed of an image; None leaves things as they are.

    `translations` are descriptions by language; an empty one is taken away. A `minversion` of 0
    offers the image to every build.
    """

    description: str | None = None
    translations: Mapping[str, str] = field(default_factory=dict)
    minversion: int | None = None
    bootme: bool | None = None


def set_percentage(where: Where, version: int, percentage: int, *, now: datetime) -> list[str]:
    """Offer the newest image to a share of the devices, in per cent; 0 offers it to nobody.

    Raises CoreImageError for any other than the newest: clients look at no other's.
    """
    check_percentage(percentage)

    def change(index: Index) -> Index:
        newest = max(image.version for image in index.images)
        if version != newest:
            raise CoreImageError(
                f"image {version} is not the newest: only that has a phased percentage",
                hint=f"the newest is {newest}; 'coreimage image withdraw' takes back an older one",
            )
        for image in index.images:
            if image.version == version and image.withdrawn is not None:
                raise CoreImageError(
                    f"image {version} is withdrawn: {image.withdrawn}",
                    hint="offer it again with 'coreimage image restore --percentage'",
                )
        return _altered(index, version, lambda image: replace(image, phased_percentage=percentage))

    return _edit(where, version, change, now=now, purpose="image phase")


def check_percentage(percentage: int) -> int:
    """Return a share of devices; DataError unless it is from 0 to 100."""
    if not 0 <= percentage <= FULL_PERCENTAGE:
        raise DataError(
            f"a phased percentage of {percentage} makes no sense", hint="give one from 0 to 100"
        )
    return percentage


def withdraw(where: Where, version: int, reason: str, *, now: datetime) -> list[str]:
    """Offer an image to nobody any more, and say why. Devices that have it keep it."""
    if not reason.strip():
        raise DataError("an image is withdrawn for a reason", hint="say it with --reason")

    def change(image: Image) -> Image:
        return replace(image, phased_percentage=0, withdrawn=reason)

    return _edit(
        where,
        version,
        lambda index: _altered(index, version, change),
        now=now,
        purpose="image withdraw",
    )


def restore(
    where: Where, version: int, *, now: datetime, percentage: int = FULL_PERCENTAGE
) -> list[str]:
    """Offer a withdrawn image again, to all devices or a share of them.

    One that is not the newest has no share: it is offered to all.
    """
    check_percentage(percentage)

    def change(index: Index) -> Index:
        if all(each.withdrawn is None for each in index.images if each.version == version):
            raise CoreImageError(
                f"image {version} is not withdrawn",
                hint="change its percentage with 'coreimage image phase'",
            )
        newest = max(image.version for image in index.images)
        phased = percentage if version == newest and percentage < FULL_PERCENTAGE else None
        return _altered(
            index, version, lambda each: replace(each, phased_percentage=phased, withdrawn=None)
        )

    return _edit(where, version, change, now=now, purpose="image restore")


def tag(where: Where, version: int, name: str, *, now: datetime) -> list[str]:
    """Give an image a name, which its version_detail says too.

    A tag is on one version of a device only: another one that has it loses it.
    """
    if not _TAG.match(name):
        raise DataError(
            f"'{name}' cannot be a tag", hint="use letters, digits and . _ + -, such as OTA-8.5"
        )

    def change(index: Index) -> Index:
        without = replace(index, images=[_untagged(image, name) for image in index.images])
        return _altered(without, version, lambda image: _with_tags(image, [*image.tags, name]))

    return _edit(where, version, change, now=now, purpose="image tag")


def untag(where: Where, version: int, name: str, *, now: datetime) -> list[str]:
    """Take a name from an image; NotFoundError when it does not have it."""

    def change(index: Index) -> Index:
        tags = {each for image in index.images if image.version == version for each in image.tags}
        if name not in tags:
            raise NotFoundError(
                f"image {version} has no tag '{name}'",
                hint="its tags are " + ", ".join(sorted(tags)) if tags else "it has none",
            )
        return _altered(index, version, lambda image: _untagged(image, name))

    return _edit(where, version, change, now=now, purpose="image tag")


def _untagged(image: Image, name: str) -> Image:
    if name not in image.tags:
        return image
    return _with_tags(image, [each for each in image.tags if each != name])


def _with_tags(image: Image, tags: Sequence[str]) -> Image:
    """Return an image with tags; old clients see the last one in its version_detail."""
    parts = [part for part in image.version_detail.split(",") if part]
    parts = [part for part in parts if not part.startswith(_TAG_DETAIL)]
    if tags:
        at = next((n for n, part in enumerate(parts) if part.startswith("version=")), len(parts))
        parts.insert(at, f"{_TAG_DETAIL}{tags[-1]}")
    return replace(image, tags=tuple(tags), version_detail=",".join(parts))


def parse_translations(texts: Sequence[str]) -> dict[str, str]:
    """Return descriptions by language from texts such as de=neu; raises DataError."""
    found = {}
    for text in texts:
        language, equals, description = text.partition("=")
        if not equals or not _LANGUAGE.match(language):
            raise DataError(
                f"'{text}' is not a translation",
                hint="write LANG=TEXT, such as de=neu or pt_BR=novo",
            )
        found[language] = description
    return found


def describe(where: Where, version: int, words: Words, *, now: datetime) -> list[str]:
    """Change what people and clients are told about an image."""
    check_minversion(words.minversion, version)

    def change(image: Image) -> Image:
        translations = {**image.translations, **words.translations}
        minversion = image.minversion if words.minversion is None else words.minversion or None
        return replace(
            image,
            description=image.description if words.description is None else words.description,
            translations={language: text for language, text in translations.items() if text},
            minversion=minversion if image.type is ImageType.FULL else None,
            bootme=image.bootme if words.bootme is None else words.bootme,
        )

    return _edit(
        where,
        version,
        lambda index: _altered(index, version, change),
        now=now,
        purpose="image describe",
    )


def require_version(index: Index, version: int) -> None:
    """Raise NotFoundError, which names the ones that exist, unless an index has a version."""
    versions = sorted({image.version for image in index.images})
    if version not in versions:
        raise NotFoundError(
            f"there is no image {version}",
            hint="its versions are " + ", ".join(map(str, versions))
            if versions
            else "there is no image yet",
        )


def _altered(index: Index, version: int, change: Callable[[Image], Image]) -> Index:
    """Return the index with the full image and all deltas of a version changed."""
    images = [change(image) if image.version == version else image for image in index.images]
    return replace(index, images=images)


def _edit(
    where: Where, version: int, change: Callable[[Index], Index], *, now: datetime, purpose: str
) -> list[str]:
    channel, device = where.channel, where.device
    purpose = f"{purpose} {channel} {device} {version}"
    with editing.edit(where.workspace, now=now, purpose=purpose, dry_run=where.dry_run) as edit:
        edit.channels.device(channel, device)
        edit.require_own(channel, device)
        index = edit.index(channel, device)
        require_version(index, version)
        changed = change(index)
        if changed != index:
            edit.put_index(channel, device, changed)
    return edit.changed()
