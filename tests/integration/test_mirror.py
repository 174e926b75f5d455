"""Mirrors of a real tree, from a folder and over HTTP, from servers that lie too."""

import json
import os
import shutil
import signal
import sys
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coreimage.cli.main import app
from coreimage.config import Workspace
from coreimage.errors import CoreImageError, NotFoundError, TrustError, UnavailableError
from coreimage.lib import run
from coreimage.lib.progress import Silent
from coreimage.systemimage import upkeep
from coreimage.systemimage.mirrors import mirror
from coreimage.systemimage.mirrors.mirror import MirrorResult
from coreimage.systemimage.mirrors.plan import Wish
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import editing, layout
from tests.integration import channel_tree as server
from tests.integration import liar
from tests.integration.liar import Liar
from tests.support.trees import snapshot

GRACE = timedelta(days=7)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A server with a channel of one image, and another channel of one."""
    workspace = server.make_workspace(tmp_path_factory.mktemp("origin") / "workspace")
    server.publish(workspace, 1)
    channels.create_channel(workspace, "kiosk/13/edge", now=server.NOW)
    server.publish(workspace, 1, channel="kiosk/13/edge", device="generic_arm64")
    return workspace


@pytest.fixture
def origin(served: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the server, of the test's own."""
    root = tmp_path / "origin"
    shutil.copytree(served.root, root, symlinks=True)
    return Workspace(root=root, settings=served.settings)


@pytest.fixture
def web(origin: Workspace) -> Iterator[Liar]:
    with liar.serving(origin.channel_tree) as found:
        yield found


def update(
    origin: Workspace,
    target: Path,
    *,
    source: str | None = None,
    wish: Wish | None = None,
    now: datetime = server.NOW,
    check: bool = False,
) -> MirrorResult:
    return mirror.mirror(
        source or str(origin.channel_tree),
        target,
        archive_master=origin.archive_master,
        wish=wish or Wish(),
        grace=GRACE,
        progress=Silent(),
        now=now,
        check=check,
    )


def payload(origin: Workspace) -> list[str]:
    found = layout.read_index(origin, server.CHANNEL, server.DEVICE)
    return [file.path for image in found.images for file in image.files]


def show(target: Path, origin: Workspace) -> None:
    """See with plain programs that a mirror is what its channels.json says."""
    ring = target.parent / "ring"
    ring.mkdir(exist_ok=True)
    state = target / "state"
    run.run(["tar", "-xf", state / "gpg/image-signing.tar.xz", "-C", ring])
    names = [path for path in target.rglob("*.asc") if ".mirror" not in path.parts]
    assert names
    for signature in names:
        data = signature.with_suffix("")
        if "gpg" not in data.parts:
            run.run(["gpgv", "--keyring", ring / "keyring.gpg", signature, data])
    listed = json.loads((target / "channels.json").read_bytes())
    for channel in listed.values():
        for device in channel["devices"].values():
            index = json.loads((target / device["index"][1:]).read_bytes())
            for image in index["images"]:
                for file in image["files"]:
                    said = run.run(["sha256sum", target / file["path"][1:]]).stdout.decode()
                    assert said.split()[0] == file["checksum"]
    assert (target / "channels.json").read_bytes() == (
        origin.channel_tree / "channels.json"
    ).read_bytes()


def test_a_folder_and_a_server_give_the_same_mirror(
    origin: Workspace, web: Liar, tmp_path: Path
) -> None:
    first = update(origin, tmp_path / "pushed")
    second = update(origin, tmp_path / "pulled", source=web.url)
    assert first == second
    assert first.changed
    assert not first.left_out
    show(tmp_path / "pulled", origin)
    ours = snapshot(tmp_path / "pushed")
    theirs = snapshot(tmp_path / "pulled")
    assert {path: each for path, each in ours.items() if ".mirror" not in path} == {
        path: each for path, each in theirs.items() if ".mirror" not in path
    }


def test_a_second_run_brings_nothing_and_a_new_image_only_what_is_new(
    origin: Workspace, web: Liar, tmp_path: Path
) -> None:
    target = tmp_path / "mirror"
    update(origin, target, source=web.url)
    before = snapshot(target)
    again = update(origin, target, source=web.url)
    assert (again.changed, again.fetched) == (False, 0)
    assert snapshot(target) == before
    server.publish(origin, 2)
    after = update(origin, target, source=web.url)
    assert (after.changed, after.fetched) == (True, 1)  # the version file; others are the same
    show(target, origin)


def test_only_what_is_asked_for_comes_and_the_rest_is_named(
    origin: Workspace, tmp_path: Path
) -> None:
    target = tmp_path / "mirror"
    result = update(origin, target, wish=Wish(channels=["kiosk/*"]))
    assert result.left_out == [(server.CHANNEL, server.DEVICE)]
    assert not (target / server.CHANNEL).exists()
    assert (target / "kiosk/13/edge/generic_arm64").is_dir()
    wider = update(origin, target)
    assert wider.fetched > 0
    assert not wider.left_out
    show(target, origin)
    with pytest.raises(NotFoundError) as caught:
        update(origin, tmp_path / "other", wish=Wish(devices=["toaster"]))
    assert "'generic_arm64' in 'kiosk/13/edge'" in caught.value.hint


def test_the_mirror_shows_the_old_state_until_everything_new_is_there(
    origin: Workspace, web: Liar, tmp_path: Path
) -> None:
    target = tmp_path / "mirror"
    update(origin, target, source=web.url)
    before = (target / "channels.json").read_bytes()
    server.publish(origin, 2, rootfs={"system/etc/hostname": b"two\n"})
    (path,) = [each for each in payload(origin) if not (target / each[1:]).exists()][:1]
    for lie, error in (
        (liar.flipped, TrustError),
        (liar.redirect("file:///etc/passwd"), UnavailableError),
    ):
        web.lies[path] = lie
        with pytest.raises(error):
            update(origin, target, source=web.url)
        assert (target / "channels.json").read_bytes() == before
        assert not (target / path[1:]).exists()
    web.lies.clear()
    update(origin, target, source=web.url)
    show(target, origin)


@pytest.mark.parametrize("lie", [liar.flipped, liar.hidden_longer, liar.shorter])
@pytest.mark.parametrize("path", ["/channels.json", "/gpg/image-signing.tar.xz"])
def test_a_server_that_lies_about_metadata_leaves_no_mirror(
    origin: Workspace, web: Liar, tmp_path: Path, path: str, lie: liar.Behaviour
) -> None:
    target = tmp_path / "mirror"
    web.lies[path] = lie
    with pytest.raises((TrustError, UnavailableError)):
        update(origin, target, source=web.url)
    assert not (target / "state").exists()


def test_an_older_state_is_refused(origin: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "mirror"
    old = tmp_path / "old"
    shutil.copytree(origin.channel_tree, old, symlinks=True)
    server.publish(origin, 2)
    update(origin, target)
    before = snapshot(target)
    with pytest.raises(TrustError, match="offers state"):
        update(origin, target, source=str(old))
    assert snapshot(target) == before


def test_an_expired_state_is_refused(origin: Workspace, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="expired"):
        update(origin, tmp_path / "mirror", now=server.NOW + timedelta(days=31))


def test_a_foreign_archive_master_is_refused(
    origin: Workspace, keyed_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrustError):
        mirror.mirror(
            str(origin.channel_tree),
            tmp_path / "mirror",
            archive_master=keyed_root / "trust/archive-master.tar.xz",
            wish=Wish(),
            grace=GRACE,
            progress=Silent(),
            now=server.NOW,
        )
    assert not (tmp_path / "mirror/state").exists()


def test_orphans_stay_for_the_grace_time(origin: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "mirror"
    update(origin, target)
    old = payload(origin)
    tree_edit = editing.edit(origin, now=server.NOW, purpose="test")
    with tree_edit as edit:
        edit.remove_device(server.CHANNEL, server.DEVICE)
    first = update(origin, target)
    assert first.removed == 0
    shared = {
        file.path
        for image in layout.read_index(origin, "kiosk/13/edge", "generic_arm64").images
        for file in image.files
    }
    lonely = [path for path in old if path not in shared]
    assert all((target / path[1:]).exists() for path in lonely)
    second = update(origin, target, now=server.NOW + timedelta(days=7))
    assert second.removed > 0
    assert not any((target / path[1:]).exists() for path in lonely)
    assert not (target / server.CHANNEL).exists()
    show(target, origin)


def test_what_was_damaged_is_found_by_a_check_and_brought_again(
    origin: Workspace, tmp_path: Path
) -> None:
    target = tmp_path / "mirror"
    update(origin, target)
    path = target / payload(origin)[0][1:]
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    assert update(origin, target).fetched == 0
    assert update(origin, target, check=True).fetched == 1
    show(target, origin)


def test_new_signatures_come_last(
    origin: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that has missed the time in which both keys were good shows no mixture."""
    target = tmp_path / "mirror"
    update(origin, target)
    server.replace_signing_key(origin)
    server.publish(origin, 2, rootfs={"system/etc/hostname": b"two"})
    old = {path: path.read_bytes() for path in target.rglob("*.asc")}
    place = mirror._bring_signatures
    brought = []

    def placing(*args: Any) -> dict[Path, Path]:
        brought.append(place(*args))
        # All that takes long is done.
        assert {path: path.read_bytes() for path in old} == old
        return brought[0]

    with monkeypatch.context() as patch:
        patch.setattr(mirror, "_bring_signatures", placing)
        result = update(origin, target)
    assert len(brought[0]) == 4
    assert result.fetched == 2  # of the new image: what is there is not brought again
    update(origin, target, now=server.NOW + GRACE)  # what the old key has signed goes
    show(target, origin)


def test_a_folder_of_other_things_is_not_made_a_mirror(origin: Workspace, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(CoreImageError, match="is not a mirror, and not empty"):
        update(origin, other)
    with pytest.raises(CoreImageError, match="is not a mirror"):
        update(origin, origin.channel_tree)


def test_a_reader_never_meets_a_state_that_is_not_whole(origin: Workspace, tmp_path: Path) -> None:
    """Reads as a client does, as often as it can, while the mirror is brought up to date."""
    target, over = tmp_path / "mirror", threading.Event()
    update(origin, target)
    seen: list[int] = []
    bad: list[str] = []

    def read() -> None:
        ring = tmp_path / "image-signing.gpg"
        with tarfile.open(target / "gpg/image-signing.tar.xz") as packed:
            keys = packed.extractfile("keyring.gpg")
            assert keys is not None
            ring.write_bytes(keys.read())
        while not over.is_set():
            state = (target / "state").resolve()
            listed = state / "channels.json"
            checked = [listed]
            document = json.loads(listed.read_bytes())
            for channel in document.values():
                for device in channel["devices"].values():
                    index = target / device["index"][1:]
                    checked.append(index)
                    images = json.loads(index.read_bytes())["images"]
                    checked += [
                        target / file["path"][1:] for image in images for file in image["files"]
                    ]
            for path in checked:
                said = run.run(["gpgv", "--keyring", ring, f"{path}.asc", path], check=False)
                if said.status:
                    bad.append(f"{path}: {said.stderr.decode()}")
            seen.append(document[server.CHANNEL]["serial"])

    reader = threading.Thread(target=read)
    reader.start()
    for version in (2, 3, 4):
        server.publish(origin, version, rootfs={"system/etc/hostname": str(version).encode()})
        update(origin, target)
    over.set()
    reader.join()
    assert not bad
    assert len(seen) > 1


KILLED = """
import os, signal, sys
from datetime import timedelta
from pathlib import Path
from coreimage.lib.progress import Silent
from coreimage.systemimage.mirrors import mirror, plan
from tests.integration.channel_tree import NOW

budget = int(sys.argv[1])
original = os.fsync

def counted(descriptor):
    global budget
    budget -= 1
    if budget < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    original(descriptor)

os.fsync = counted
mirror.mirror(
    sys.argv[2], Path(sys.argv[3]), archive_master=Path(sys.argv[4]), wish=plan.Wish(),
    grace=timedelta(days=7), progress=Silent(), now=NOW,
)
"""


def test_killed_at_any_instant_it_shows_the_old_state_or_the_new_one(
    origin: Workspace, tmp_path: Path
) -> None:
    target = tmp_path / "mirror"
    update(origin, target)
    states = {(target / "channels.json").read_bytes()}
    server.publish(origin, 2, rootfs={"system/etc/hostname": b"two"})
    states.add((origin.channel_tree / "channels.json").read_bytes())
    places = [origin.channel_tree, target, origin.archive_master]
    ended = None
    for budget in range(0, 400, 17):
        env = {"PYTHONPATH": os.pathsep.join(["", *sys.path])}
        argv = [sys.executable, "-c", KILLED, str(budget), *map(str, places)]
        ended = run.run(argv, env=env, check=False)
        assert (target / "channels.json").read_bytes() in states
        for path in target.rglob("*.tar.xz"):
            if ".mirror" not in path.parts and ".scratch-" not in str(path):
                assert Path(f"{path}.asc").is_file()
        if ended.status == 0:
            break
        assert ended.status == -signal.SIGKILL, ended.stderr.decode()
    assert ended is not None
    assert ended.status == 0
    show(target, origin)


def test_the_command(origin: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "mirror"
    tree_path = str(origin.channel_tree)
    upkeep.keep_up(origin, progress=Silent(), now=datetime.now(UTC))  # commands go by the clock
    words = ["channel", "mirror", tree_path, str(target), "--channel", "kiosk/*"]
    words += ["--archive-master", str(origin.archive_master)]
    dry = CliRunner().invoke(app, [*words, "--dry-run"])
    assert dry.exit_code == 0
    assert "would bring 3 files" in dry.stdout
    assert not (target / "state").exists()
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert (answer["fetched"], answer["changed"]) == (3, True)
    assert answer["left_out"] == [{"channel": server.CHANNEL, "device": server.DEVICE}]


@pytest.mark.parametrize("lost", ["the tree", "the keyring"])
def test_a_path_that_leads_nowhere_is_named_with_a_hint(
    origin: Workspace, tmp_path: Path, lost: str
) -> None:
    nowhere = str(tmp_path / "nowhere")
    tree = nowhere if lost == "the tree" else str(origin.channel_tree)
    key = nowhere if lost == "the keyring" else str(origin.archive_master)
    words = ["channel", "mirror", tree, str(tmp_path / "mirror"), "--archive-master", key]
    failed = CliRunner().invoke(app, words)
    assert isinstance(failed.exception, NotFoundError)
    assert nowhere in failed.exception.message
    assert failed.exception.hint
