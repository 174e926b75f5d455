"""Image sets: built by small programs in place of the rootfs command, published with real keys."""

import json
from pathlib import Path

import pytest

from coreimage import imageset
from coreimage.config import Workspace, load_workspace
from coreimage.errors import (
    CoreImageError,
    DataError,
    IncompleteError,
    TrustError,
    UsageError,
)
from coreimage.farm import executor, folder, queue
from coreimage.imageset import Order, When, check, make_set
from coreimage.lib.progress import Silent
from coreimage.model.build import Subproject
from coreimage.pipeline import builds
from coreimage.pipeline.publishing import publish_finished
from coreimage.systemimage.tree import layout
from tests.integration.image_sets import (  # noqa: F401  fixtures are found by their names
    FAILS,
    TODAY,
    WRITES,
    Builder,
    directory,
    noon,
    published,
    space_fixture,
    tarballs,
    trigger,
)

OTHER_CHANNELS = """
[channels."a/b/other"]
project = "debian-core"
release = "13"
devices = { one = "amd64", two = "arm64" }

[channels."a/b/folder"]
files = [{ generator = "cdimage-rootfs", path = "/srv/elsewhere", series = "x", product = "core" }]

[channels."a/b/own"]
[[channels."a/b/own".files]]
generator = "cdimage-rootfs"
path = "www/cdimage/ubuntu-core/vivid/daily-preinstalled"

[channels."a/b/none"]
files = [{ generator = "keyring" }]
"""


def test_all_arches_share_one_build_id_and_publication(space: Workspace) -> None:
    builder = Builder()
    outcome = trigger(space, builder, extra=["snappy-dev/image:1001", "a/b"])

    assert outcome.version == TODAY
    assert outcome.complaint() is None
    assert [each.version for each in outcome.published] == [TODAY]
    assert published(space) == tarballs(amd64="one", arm64="one")
    options = ["--extra-archive", "snappy-dev/image:1001", "--extra-archive", "a/b"]
    assert builder.asked == [("amd64", options), ("arm64", options)]
    builds = queue.list_builds(space)
    assert {each.request.version for each in builds} == {TODAY}
    assert builds[0].extra["extra_archives"] == ["snappy-dev/image:1001", "a/b"]
    assert builds[0].fingerprint == "arm64 one"


def test_later_sets_of_a_day_have_numbers(space: Workspace) -> None:
    for version in (TODAY, f"{TODAY}.1", f"{TODAY}.2"):
        assert trigger(space, Builder()).version == version
    assert (directory(space).parent / "pending").readlink() == Path(f"{TODAY}.2")


def test_a_failed_arch_is_carried_over(space: Workspace) -> None:
    trigger(space, Builder())
    told: list[tuple[str, CoreImageError]] = []
    outcome = make_set(
        space,
        Order(project="ubuntu-core", arches=["amd64", "arm64"]),
        when=When.ALWAYS,
        host="amd64",
        progress=Silent(),
        complain=lambda arch, error: told.append((arch, error)),
        command=Builder({"arm64": FAILS}, text="two"),
        clock=noon,
    )

    second = f"{TODAY}.1"
    assert [arch for arch, _ in told] == ["arm64"]
    assert isinstance(told[0][1], DataError)
    assert "no hook" in told[0][1].message
    assert "coreimage build log 4" in told[0][1].hint
    complaint = outcome.complaint()
    assert isinstance(complaint, IncompleteError)
    assert complaint.exit_code == 3
    assert published(space, second) == tarballs(amd64="two", arm64="one")
    name = "vivid-preinstalled-core-arm64.tar.gz"
    assert (directory(space) / name).samefile(directory(space, second) / name)
    info = json.loads((directory(space, second) / ".publish_info").read_text())
    assert info["carried_over"] == {"arm64": TODAY}
    assert info["builds"] == [3]


def test_what_was_carried_over_is_carried_on(space: Workspace) -> None:
    trigger(space, Builder())
    for text in ("two", "three"):
        trigger(space, Builder({"arm64": FAILS}, text=text))

    assert published(space, f"{TODAY}.2") == tarballs(amd64="three", arm64="one")


def test_a_failed_arch_that_never_was_published_is_left_out(space: Workspace) -> None:
    outcome = trigger(space, Builder({"arm64": FAILS}))

    assert set(outcome.failures) == {"arm64"}
    assert published(space) == tarballs(amd64="one")


def test_nothing_is_published_when_nothing_was_built(space: Workspace) -> None:
    outcome = trigger(space, Builder({"amd64": FAILS, "arm64": FAILS}))

    complaint = outcome.complaint()
    assert complaint is not None
    assert complaint.exit_code == 65
    assert "nothing was built for: amd64, arm64" in complaint.message
    assert outcome.published == []
    assert not directory(space).parent.exists()


def test_different_failures_have_the_common_exit_code(space: Workspace) -> None:
    outcome = trigger(space, Builder({"amd64": FAILS, "arm64": "raise SystemExit(69)"}))

    complaint = outcome.complaint()
    assert complaint is not None
    assert complaint.exit_code == 1


def test_a_publication_that_was_changed_is_not_signed_again(space: Workspace) -> None:
    trigger(space, Builder())
    place = directory(space)
    sums = place / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("arm64.manifest", "arm64.x"))

    with pytest.raises(TrustError):
        trigger(space, Builder({"arm64": FAILS}, text="two"))
    assert not directory(space, f"{TODAY}.1").exists()


def test_files_that_were_changed_are_not_carried_over(space: Workspace) -> None:
    trigger(space, Builder())
    path = directory(space) / "vivid-preinstalled-core-arm64.tar.gz"
    path.unlink()
    path.write_text("other")

    with pytest.raises(DataError, match="is not what was built"):
        trigger(space, Builder({"arm64": FAILS}, text="two"))
    assert not directory(space, f"{TODAY}.1").exists()


def test_without_builds_what_was_built_is_published(space: Workspace) -> None:
    (requested,) = queue.request(
        space,
        project="ubuntu-core",
        release="15.04",
        series="vivid",
        arches=["amd64"],
        clock=noon,
    )
    place = folder.folder_of(space, requested.id)
    argv = Builder()(requested.request, place.partial, [])
    executor.run_build(space, requested.id, argv=argv, progress=Silent())

    builder = Builder()
    outcome = trigger(space, builder, when=When.NEVER)
    assert builder.asked == []
    assert [each.version for each in outcome.published] == [TODAY]
    assert published(space) == tarballs(amd64="one")
    assert trigger(space, builder, when=When.NEVER).published == []


def test_a_set_that_is_not_finished_is_not_published(space: Workspace) -> None:
    arches = ["amd64", "arm64"]
    first, second = queue.request(
        space, project="ubuntu-core", release="15.04", series="vivid", arches=arches, clock=noon
    )
    place = folder.folder_of(space, first.id)
    argv = Builder()(first.request, place.partial, [])
    executor.run_build(space, first.id, argv=argv, progress=Silent())

    assert publish_finished(space, progress=Silent()) == []
    queue.abort(space, second.id)
    assert [each.version for each in publish_finished(space, progress=Silent())] == [TODAY]
    assert published(space) == tarballs(amd64="one")


def test_the_subproject_is_the_orders_or_else_the_definitions(space: Workspace) -> None:
    for subproject in (None, *Subproject):
        order = Order(project="ubuntu-core", arches=["amd64"], subproject=subproject)
        make_set(
            space,
            order,
            when=When.ALWAYS,
            host="amd64",
            progress=Silent(),
            command=Builder(),
            clock=noon,
        )
    builds = [queue.get(space, number) for number in (1, 2, 3)]
    assert [each.request.subproject for each in builds] == ["system-image", "system-image", ""]
    argv = executor.argv_of(space, builds[2], executor.rootfs_argv)
    assert argv[argv.index("--subproject") + 1] == "none"


def test_carried_over_is_what_has_its_kernel_in_the_same_place(space: Workspace) -> None:
    trigger(space, Builder())
    plain = WRITES.replace('"device.tar.gz", ', "")
    trigger(space, Builder({"amd64": plain, "arm64": FAILS}))
    assert published(space, f"{TODAY}.1") == {
        name: text
        for name, text in tarballs(amd64="one").items()
        if not name.endswith(".device.tar.gz")
    }
    trigger(space, Builder({"arm64": FAILS}, text="two"))
    assert published(space, f"{TODAY}.2") == tarballs(amd64="two", arm64="one")


def test_a_channel_of_devices_needs_the_device_tarball(space: Workspace) -> None:
    builder = Builder()
    order = Order(project="ubuntu-core", subproject=Subproject.NONE, channel="edge")
    with pytest.raises(UsageError, match="takes a device tarball of 'ubuntu-core'") as told:
        make_set(space, order, when=When.ALWAYS, host="amd64", progress=Silent(), command=builder)
    assert "SUBPROJECT" in told.value.hint
    assert builder.asked == []
    assert queue.list_builds(space) == []


@pytest.mark.parametrize(
    ("arch", "channel", "hint"),
    [
        ("arm64", "edge", "it takes ubuntu-core vivid for amd64: name another"),
        ("amd64", "other", "it takes debian-core trixie for amd64, arm64: name another"),
        ("amd64", "folder", "it takes /srv/elsewhere for amd64: name another"),
        ("amd64", "none", "it takes no publications: name another"),
    ],
)
@pytest.mark.parametrize("when", [When.ALWAYS, When.CHANGED, When.NEVER])
def test_a_channel_that_takes_nothing_of_a_set_is_refused_at_once(
    space: Workspace, when: When, arch: str, channel: str, hint: str
) -> None:
    config = space.root / "coreimage.toml"
    config.write_text(f"{config.read_text()}{OTHER_CHANNELS}")
    space = load_workspace(space.root)
    builder = Builder()
    name = channel if channel == "edge" else f"a/b/{channel}"
    order = Order(project="ubuntu-core", arches=[arch], channel=name)
    with pytest.raises(
        UsageError, match=f"takes nothing of 'ubuntu-core' vivid for {arch}"
    ) as told:
        make_set(space, order, when=when, host="amd64", progress=Silent(), command=builder)
    assert told.value.hint.startswith(hint)
    assert builder.asked == []
    assert layout.read_channels(space).channels == {}


def test_a_channel_may_take_what_lies_in_the_workspaces_own_folder(space: Workspace) -> None:
    config = space.root / "coreimage.toml"
    config.write_text(f"{config.read_text()}{OTHER_CHANNELS}")
    order = Order(project="ubuntu-core", arches=["amd64"], channel="a/b/own")
    check(load_workspace(space.root), order, host="amd64")


def test_later_builds_are_told_whose_ids_they_must_have(space: Workspace) -> None:
    for _ in range(2):
        builder = Builder()
        trigger(space, builder)
    for arch, options in builder.asked:
        number = 1 if arch == "amd64" else 2
        record = folder.folder_of(space, number).artifacts / "livecd.ubuntu-core.build.json"
        assert options == ["--ids-of", str(record)]

    (again,) = builds.request_builds(
        space,
        imageset.resolve(space, Order(project="ubuntu-core", arches=["amd64"]), host="amd64"),
        extra={"new_ids": True},
    )
    assert "--ids-of" not in executor.argv_of(space, again, executor.rootfs_argv)
