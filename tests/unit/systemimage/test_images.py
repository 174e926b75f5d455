"""Numbers of images, and how a new one joins the others."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from coreimage.errors import CoreImageError
from coreimage.model.index import Image, ImageFile, ImageType, Index
from coreimage.systemimage import images


def full(version: int, **other: Any) -> Image:
    file = ImageFile(order=0, path=f"/pool/rootfs-{version}.tar.xz", checksum="0" * 64, size=1)
    return Image(type=ImageType.FULL, version=version, files=[file], **other)


def test_the_first_image_is_1(now: datetime) -> None:
    assert images.next_version(images.empty_index(now)) == 1


def test_numbers_go_on_after_the_newest_image_was_removed(now: datetime) -> None:
    index = images.add_images(images.empty_index(now), [full(1), full(2)])
    without = replace(index, images=[full(1)])
    again = Index.from_json(without.to_json())
    assert images.next_version(again) == 3


def test_the_format_ends_somewhere(now: datetime) -> None:
    index = Index(generated_at=now, images=[full(65535)])
    with pytest.raises(CoreImageError, match="65535"):
        images.next_version(index)


def test_only_the_newest_version_keeps_its_phasing(now: datetime) -> None:
    index = images.add_images(images.empty_index(now), [full(1, phased_percentage=20)])
    index = images.add_images(index, [full(2, phased_percentage=10)])
    assert [image.phased_percentage for image in index.images] == [None, 10]


def test_an_image_stays_withdrawn_when_a_newer_one_comes(now: datetime) -> None:
    bad = full(1, phased_percentage=0, withdrawn="does not boot")
    index = images.add_images(images.empty_index(now), [bad])
    index = images.add_images(index, [full(2)])
    assert [image.phased_percentage for image in index.images] == [0, None]


def test_images_are_sorted_and_other_keys_are_kept(now: datetime) -> None:
    index = Index(generated_at=now, images=[full(3)], extra={"kept": True})
    index = images.add_images(index, [full(2)])
    assert [image.version for image in index.images] == [2, 3]
    assert index.extra == {"kept": True, "last_version": 3}
