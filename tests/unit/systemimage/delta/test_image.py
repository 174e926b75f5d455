"""Deltas of images: several files that are applied to one tree."""

import lzma
from pathlib import Path

import pytest

from coreimage.errors import DataError
from coreimage.lib.progress import Silent
from coreimage.systemimage.delta.image import ImagePlan, Pair, Refusal, plan_image, write_delta
from tests.support.recovery import Recovery, same_for_users
from tests.support.tarballs import Member, directory, file, hard_link, tar_of

SHARED = directory("system/etc")


class Pool:
    """Tarballs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, *members: Member) -> Path:
        path = self.folder / f"{name}.tar.xz"
        path.write_bytes(lzma.compress(tar_of(*members), preset=0))
        return path


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path)


def delta(pool: Pool, pair: tuple[Path, Path], name: str = "delta") -> bytes:
    output = pool.folder / f"{name}.tar.xz"
    base, target = pair
    found = write_delta(base=base, target=target, output=output, level=1, progress=Silent())
    assert not isinstance(found, Refusal)
    return output.read_bytes()


def test_the_same_inputs_give_the_same_bytes(pool: Pool) -> None:
    pair = pool.add("a", file("x", b"1" * 10**6)), pool.add("b", file("x", b"2" * 10**6))
    made = delta(pool, pair)
    assert delta(pool, pair, "again") == made
    assert made.startswith(b"\xfd7zXZ")


def test_an_image_arrives_at_its_target(pool: Pool) -> None:
    rootfs = (
        pool.add("rootfs-1", SHARED, file("system/etc/a", b"1"), file("system/old")),
        pool.add("rootfs-2", SHARED, file("system/etc/a", b"2"), file("system/new")),
    )
    device = pool.add("device-1", SHARED, file("assets/vmlinuz"), file("system/etc/hw"))
    version = tuple(
        pool.add(f"version-{number}", file("system/etc/ubuntu-build", number.encode()))
        for number in "12"
    )
    pairs = [
        Pair(base=rootfs[0], target=rootfs[1]),
        Pair(base=device, target=device),
        Pair(base=version[0], target=version[1], whole=True),
    ]
    found = plan_image(pairs, progress=Silent())
    assert isinstance(found, ImagePlan)
    assert [None if each is None else bool(each) for each in found.plans] == [True, False, None]
    phone, wanted = Recovery(), Recovery()
    for path in (rootfs[0], device, version[0]):
        phone.update(lzma.decompress(path.read_bytes()))
    for tarball in (delta(pool, rootfs), version[1].read_bytes()):
        phone.update(lzma.decompress(tarball))
    for path in (rootfs[1], device, version[1]):
        wanted.update(lzma.decompress(path.read_bytes()))
    # The folder was changed by the version file, in both cases, and has the time of that.
    found_tree, wanted_tree = phone.described(), wanted.described()
    assert found_tree.pop("system/etc")[:2] == wanted_tree.pop("system/etc")[:2]
    assert same_for_users(found_tree, wanted_tree)


def refusal(*pairs: Pair) -> str:
    found = plan_image(pairs, progress=Silent())
    assert isinstance(found, Refusal)
    return found.reason


def test_removing_a_folder_must_not_take_what_another_file_put_there(pool: Pool) -> None:
    """The device's modules lie in a folder that the root file system no longer has."""
    rootfs = Pair(
        base=pool.add("rootfs-1", directory("system/usr/lib/modules")),
        target=pool.add("rootfs-2", directory("system/usr/lib")),
    )
    device = pool.add("device", file("system/usr/lib/modules/6/dep"))
    reason = refusal(rootfs, Pair(base=device, target=device))
    assert reason == ("files of the images get in each other's way at 'system/usr/lib/modules'")


def test_a_file_that_two_tarballs_bring_is_refused_when_the_first_changes(pool: Pool) -> None:
    rootfs = Pair(base=pool.add("r1", file("a", b"1")), target=pool.add("r2", file("a", b"2")))
    device = pool.add("device", file("a", b"device"))
    assert "at 'a'" in refusal(rootfs, Pair(base=device, target=device))
    changed = pool.add("device-2", file("a", b"new device"))
    found = plan_image([rootfs, Pair(base=device, target=changed)], progress=Silent())
    assert isinstance(found, ImagePlan)


def test_a_file_that_is_no_longer_part_of_the_image_leaves_nothing_behind(pool: Pool) -> None:
    custom = pool.add("custom", file("system/custom"))
    assert "at 'system'" in refusal(Pair(base=custom, target=None))


def test_a_file_that_joins_the_image_is_sent_whole(pool: Pool) -> None:
    custom = pool.add("custom", file("system/custom"))
    found = plan_image([Pair(base=None, target=custom)], progress=Silent())
    assert found == ImagePlan(plans=[None])


def test_a_name_that_leaves_a_hard_link_for_another_file(pool: Pool) -> None:
    one = pool.add("one", file("a", b"x"), hard_link("b", "a"))
    other = Pair(base=pool.add("o1", file("c")), target=pool.add("o2", file("b", b"x")))
    assert isinstance(plan_image([Pair(base=one, target=one), other], progress=Silent()), ImagePlan)


def test_why_there_is_no_delta(pool: Pool) -> None:
    base, target = pool.add("base", file("a b")), pool.add("target")
    output = pool.folder / "delta.tar.xz"
    found = write_delta(base=base, target=target, output=output, level=1, progress=Silent())
    assert found == Refusal(reason="'a b' has to go, and no recovery could be told so safely")
    assert not output.exists()


def test_a_damaged_tarball_is_no_refusal_but_an_error(pool: Pool) -> None:
    good = pool.add("good", file("a", b"x" * 1000))
    (pool.folder / "bad.tar.xz").write_bytes(good.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"'bad\.tar\.xz' is damaged"):
        plan_image([Pair(base=good, target=pool.folder / "bad.tar.xz")], progress=Silent())
