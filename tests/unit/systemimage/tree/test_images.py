"""Numbers of images, and how a new one joins the others."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from coreimage.errors import CoreImageError, DataError
from coreimage.model.index import Image, ImageFile, ImageType, Index
from coreimage.model.upgrade import Client, decide
from coreimage.systemimage.tree import images


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


def sized(version: int, size: int, *, base: int | None = None) -> Image:
    kind = ImageType.FULL if base is None else ImageType.DELTA
    path = f"/pool/rootfs-{version}-{base}.tar.xz"
    file = ImageFile(order=0, path=path, checksum="0" * 64, size=size)
    return Image(type=kind, version=version, base=base, files=[file])


@pytest.mark.parametrize(
    ("sizes", "deltas"),
    [
        ([90 << 20, 90 << 20], {(1, 2): 1000}),
        ([90 << 20, 95 << 20], {(1, 2): 3 << 20}),
        ([90 << 20, 90 << 20, 91 << 20], {(1, 2): 1000, (2, 3): 1 << 20, (1, 3): 2 << 20}),
        ([90 << 20, 20 << 20, 90 << 20], {(1, 2): 5 << 20, (2, 3): 5 << 20}),
    ],
)
def test_old_clients_put_no_delta_on_a_full_image(
    now: datetime, sizes: list[int], deltas: dict[tuple[int, int], int]
) -> None:
    index = images.empty_index(now)
    for version, size in enumerate(sizes, 1):
        new = [sized(version, size)]
        new += [
            sized(version, each, base=base)
            for (base, target), each in deltas.items()
            if target == version
        ]
        index = images.add_images(index, new)
    for build in range(len(sizes)):
        old = decide(index, build=build, client=Client.OLD).chosen
        ours = decide(index, build=build, client=Client.OURS).chosen
        assert old is not None
        assert ours is not None
        assert old.version == ours.version == len(sizes)
        kinds = [image.type for image in old.images]
        assert kinds == [ImageType.FULL] or ImageType.FULL not in kinds


def test_a_minversion_holds_for_images_that_old_clients_are_kept_from(now: datetime) -> None:
    index = images.add_images(images.empty_index(now), [full(7, minversion=3)])
    index = images.add_images(index, [full(8, minversion=3), sized(8, 1, base=7)])
    assert index.images[0].kept_from_old_clients
    again = Index.from_json(index.to_json())
    for build, ours in ((2, None), (3, 8)):
        found = decide(again, build=build, client=Client.OURS).chosen
        assert (found.version if found else None) == ours
    # Once nothing leads from it to the newest any more, it is an image as any other.
    later = images.add_images(again, [full(9)])
    assert [(each.kept_from_old_clients, each.minversion) for each in later.images] == [
        (False, 3),
        (False, None),
        (False, 3),
        (False, None),
    ]


@pytest.mark.parametrize("minversion", [-1, 7, 8])
def test_no_image_is_for_builds_that_have_it(minversion: int) -> None:
    with pytest.raises(DataError, match="makes no sense for image 7") as caught:
        images.check_minversion(minversion, 7)
    assert "from 0 to 6" in caught.value.hint
    images.check_minversion(6, 7)
    images.check_minversion(None, 7)


def test_no_two_files_of_a_way_have_one_name(now: datetime) -> None:
    """Old clients put all files of a way into one folder, and give up when two have one name."""

    def named(base: int, version: int, path: str, checksum: str) -> Image:
        file = ImageFile(order=0, path=path, checksum=checksum * 64, size=1)
        return Image(type=ImageType.DELTA, version=version, base=base, files=[file])

    first, other = "/pool/rootfs-b.delta-rootfs-a.tar.xz", "/pool/00/rootfs-b.delta-rootfs-a.tar.xz"
    index = images.empty_index(now)
    for new in ([], [named(1, 2, first, "0")], [], [named(3, 4, other, "1")], []):
        index = images.add_images(index, [full(images.next_version(index)), *new])
    kinds = [(image.type, image.version) for image in index.images]
    assert [version for kind, version in kinds if kind is ImageType.DELTA] == [2]
    assert [version for kind, version in kinds if kind is ImageType.FULL] == [1, 2, 3, 4, 5]
    again = images.add_images(index, [full(6), named(5, 6, first, "0")])
    assert again.images[-2].base == 5  # the same file is no other one


def test_our_clients_may_take_a_full_image_that_old_ones_are_kept_from(now: datetime) -> None:
    index = images.add_images(images.empty_index(now), [full(1)])
    index = images.add_images(index, [full(2), sized(2, 1, base=1)])
    pulled = [
        replace(each, phased_percentage=0) if each.version > 1 else each for each in index.images
    ]
    index = replace(index, images=pulled)
    chosen = decide(index, build=0, client=Client.OURS, machine_id="a" * 32).chosen
    assert chosen is not None
    assert chosen.version == 1
