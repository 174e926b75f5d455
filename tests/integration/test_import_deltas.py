"""Deltas that an import makes: in the same step, exact, and only where they are worth it."""

import lzma
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.feeds import ChannelSettings
from coreimage.lib.progress import Progress, Silent, Task
from coreimage.model.index import Image, ImageType
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.imports import importer
from coreimage.systemimage.imports.addition import ImportResult
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import editing, layout, orphans, pool
from tests.support.publications import (
    SERIES,
    device_members,
    member,
    publish,
    rootfs_members,
    tarball,
)
from tests.support.recovery import Recovery

CHANNEL, DEVICE = "ubuntu-core/edge", "generic_amd64"
NOISE = random.Random(1).randbytes(200_000)  # noqa: S311  bytes that do not compress
Import = Callable[..., ImportResult]


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def run_import(workspace: Workspace, now: datetime, notes: Notes) -> Import:
    channels.create_channel(workspace, CHANNEL, now=now)

    def run(
        channel: str = CHANNEL, *, progress: Progress | None = None, **more: object
    ) -> ImportResult:
        settings = {"deltabase": [CHANNEL], "project": "ubuntu-core", "release": "15.04", **more}
        return importer.import_image(
            workspace,
            channel=channel,
            device=DEVICE,
            settings=ChannelSettings.model_validate(settings),
            series=SERIES,
            progress=progress or notes,
            now=now,
        )

    return run


def rootfs(text: str, *more: str) -> bytes:
    extra = [member(f"./etc/{name}", data=name.encode()) for name in more]
    return tarball([*rootfs_members(text=text), *extra, member("./usr/lib/noise", data=NOISE)])


def image(workspace: Workspace, version: int, base: int | None = None) -> Image:
    found = layout.read_index(workspace, CHANNEL, DEVICE).images
    return next(each for each in found if (each.version, each.base) == (version, base))


def apply(recovery: Recovery, workspace: Workspace, found: Image) -> None:
    for file in sorted(found.files, key=lambda each: each.order):
        content = lzma.decompress(layout.local_path(workspace, file.path).read_bytes())
        recovery.update(content)


def seen(recovery: Recovery) -> dict[str, object]:
    """Return all there is, but the times of directories that several tarballs share."""
    return {
        path: (*each[:3], each[3] if each[0] != "directory" else None, each[4])
        for path, each in recovery.described().items()
    }


def test_full_and_delta_lead_to_the_same_system(workspace: Workspace, run_import: Import) -> None:
    publish(workspace, "20150511", rootfs=rootfs("one", "old"))
    run_import()
    publish(workspace, "20150512", rootfs=rootfs("two", "new"))
    result = run_import(phase=20)
    delta = image(workspace, 2, 1)
    assert delta.type is ImageType.DELTA
    assert delta.size < result.image.size / 10
    assert (delta.phased_percentage, result.image.phased_percentage) == (20, 20)
    assert delta.files[-1].path == result.image.files[-1].path  # the version file is shared
    assert not any("device" in file.path for file in delta.files)  # nothing to do for it
    stem = result.image.files[0].path.rpartition("/")[2].removesuffix(".tar.xz")
    base = image(workspace, 1).files[0].path.rpartition("/")[2]
    assert delta.files[0].path == f"/pool/{stem}.delta-{base}"
    updated, installed = Recovery(), Recovery()
    apply(updated, workspace, image(workspace, 1))
    apply(updated, workspace, delta)
    apply(installed, workspace, result.image)
    assert seen(updated) == seen(installed)


def test_without_a_base_there_is_no_delta(workspace: Workspace, run_import: Import) -> None:
    publish(workspace, "20150511")
    run_import()
    publish(workspace, "20150512", rootfs=rootfs("two"))
    run_import(deltabase=[])
    assert [each.base for each in layout.read_index(workspace, CHANNEL, DEVICE).images] == [
        None
    ] * 2


def test_one_that_is_no_smaller_is_left_out_with_a_note(
    workspace: Workspace, run_import: Import, notes: Notes
) -> None:
    publish(workspace, "20150511", rootfs=tarball([member("etc/a", data=b"a")]))
    run_import()
    publish(
        workspace,
        "20150512",
        rootfs=tarball([member("etc/b", data=NOISE)]),
        device=tarball(device_members("b")),
    )
    run_import()
    assert [each.base for each in layout.read_index(workspace, CHANNEL, DEVICE).images] == [
        None
    ] * 2
    assert any(each.startswith("no delta from image 1: it would take") for each in notes.notes)


def test_one_that_cannot_be_exact_is_left_out_with_a_note(
    workspace: Workspace, run_import: Import, notes: Notes
) -> None:
    publish(workspace, "20150511", rootfs=rootfs("one", "an unsafe name"))
    run_import()
    publish(workspace, "20150512", rootfs=rootfs("two"))
    assert run_import().version == 2
    assert any("'system/etc/an unsafe name'" in each for each in notes.notes)


def test_the_newest_image_of_another_channel_is_a_base_when_it_is_known_here(
    workspace: Workspace, run_import: Import, now: datetime, notes: Notes
) -> None:
    channels.create_channel(workspace, "stable", now=now)
    for number, text in enumerate(("one", "two"), 1):
        publish(workspace, f"2015051{number}", rootfs=rootfs(text))
        run_import(deltabase=[])
        if number == 1:
            run_import("stable")
    publish(workspace, "20150513", rootfs=rootfs("three"))
    run_import(deltabase=[CHANNEL, "stable", "nowhere"])
    deltas = [
        each.base for each in layout.read_index(workspace, CHANNEL, DEVICE).images if each.base
    ]
    assert deltas == [1, 2]
    assert "no delta from channel 'nowhere': it has no 'generic_amd64'" in notes.notes


def test_a_published_delta_is_never_replaced_by_other_bytes(
    workspace: Workspace, run_import: Import, tmp_path: Path
) -> None:
    publish(workspace, "20150511", rootfs=rootfs("one"))
    run_import()
    publish(workspace, "20150512", rootfs=rootfs("two"))
    run_import()
    entry = image(workspace, 2, 1).files[0]
    published = pool.find(workspace, entry)
    assert published is not None
    same = replace(published, staged=tmp_path)
    assert pool.free_path(workspace, same) == same
    other = replace(published, staged=tmp_path, checksum="ab" * 32)
    folder, _, name = entry.path.rpartition("/")
    assert pool.free_path(workspace, other).path == f"{folder}/{'ab' * 8}/{name}"


def test_c5_a_base_that_was_altered_is_none(
    workspace: Workspace, run_import: Import, notes: Notes
) -> None:
    publish(workspace, "20150511", rootfs=rootfs("one"))
    first = run_import()
    path = layout.local_path(workspace, first.image.files[0].path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    publish(workspace, "20150512", rootfs=rootfs("two"))
    run_import()
    assert [each.base for each in layout.read_index(workspace, CHANNEL, DEVICE).images] == [
        None
    ] * 2
    assert any("no delta from image 1: the signature" in each for each in notes.notes)


def test_paths_that_only_the_old_version_file_has_would_stay(
    workspace: Workspace, run_import: Import, notes: Notes, now: datetime
) -> None:
    """The full image brings its own version file only: other makers' files may say more."""
    publish(workspace, "20150511", rootfs=rootfs("one"))
    first = run_import().image
    with editing.edit(workspace, now=now, purpose="test") as edit:
        old = edit.where(first.files[-1].path).read_bytes()
        more = tarball([member("system/etc/more.ini", data=b"x")], compressed=False)
        content = lzma.compress(more[:1024] + lzma.decompress(old))
        path = edit.free_path(first.files[-1].path, content)
        edit.put_signed(path, content, level=KeyringType.IMAGE_SIGNING)
        checksum = sha256(content).hexdigest()
        entry = replace(first.files[-1], path=path, checksum=checksum, size=len(content))
        changed = replace(first, files=[*first.files[:-1], entry])
        edit.put_index(CHANNEL, DEVICE, replace(edit.index(CHANNEL, DEVICE), images=[changed]))
    publish(workspace, "20150512", rootfs=rootfs("two"))
    run_import()
    assert [each.base for each in layout.read_index(workspace, CHANNEL, DEVICE).images] == [
        None
    ] * 2
    assert any("in each other's way at 'system/etc/more.ini'" in each for each in notes.notes)


class Collecting(Notes):
    """Removes what nothing names, as soon as something is compressed."""

    def __init__(self, workspace: Workspace, now: datetime) -> None:
        super().__init__()
        self._workspace, self._now = workspace, now

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "bytes") -> Iterator[Task]:
        if title.startswith("compressing"):
            gone = orphans.collect(self._workspace, now=self._now, grace=timedelta())
            self.notes += ["collected"] if gone.files else []
        with super().task(title, total, unit=unit) as task:
            yield task


def test_a_file_that_gc_takes_while_it_is_to_be_used_again_is_made_anew(
    workspace: Workspace, run_import: Import, now: datetime
) -> None:
    publish(workspace, "20150511", rootfs=rootfs("one"))
    before = run_import().image
    channels.remove_channel(workspace, CHANNEL, now=now)
    channels.create_channel(workspace, CHANNEL, now=now)
    for path in workspace.channel_tree.rglob("*.*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (now.timestamp(), now.timestamp()))
    publish(workspace, "20150512", rootfs=rootfs("one"), device=tarball(device_members("new")))
    progress = Collecting(workspace, now)
    after = run_import(progress=progress).image
    assert "collected" in progress.notes
    gone = before.files[0].path
    assert f"'{gone}' was removed while it was to be used again" in progress.notes
    assert after.files[0] == before.files[0]
    assert all(layout.local_path(workspace, file.path).is_file() for file in after.files)


def test_two_importers_of_different_images_both_finish_in_order(
    workspace: Workspace, run_import: Import
) -> None:
    """Each makes its delta from the newest image, also when the other one came first."""
    publish(workspace, "20150511", rootfs=rootfs("one"))
    run_import()
    publish(workspace, "20150512", rootfs=rootfs("two"), good=True)
    publish(workspace, "20150513", rootfs=rootfs("three"))
    results: list[ImportResult] = []
    threads = [
        threading.Thread(target=lambda accept=accept: results.append(run_import(accept=accept)))
        for accept in ("any", "good")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.version for each in results) == [2, 3]
    found = layout.read_index(workspace, CHANNEL, DEVICE).images
    assert [(each.version, each.base) for each in found] == [
        (1, None),
        (2, 1),
        (2, None),
        (3, 2),
        (3, None),
    ]
