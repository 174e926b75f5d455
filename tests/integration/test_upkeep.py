"""Keeping house: orphans, what is missing, signing again; weaknesses 17 to 24 of the contract."""

import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.errors import DataError, TrustError
from coreimage.lib import trust
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.keyring import SIGNED_BY, KeyringType
from coreimage.systemimage import upkeep
from coreimage.systemimage.keys import keyrings, resign
from coreimage.systemimage.operations import channels, expiry
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import editing, inventory, layout, orphans
from coreimage.systemimage.tree.inventory import Finding
from tests.conftest import NOW
from tests.integration.channel_tree import DEVICE
from tests.integration.test_channels import EDGE, newest, publish
from tests.support.trees import snapshot

WEEK = timedelta(days=7)


@pytest.fixture(scope="session")
def kept_root(keyed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two images and an alias, all files as old as the clock of the tests."""
    root = tmp_path_factory.mktemp("kept") / "workspace"
    shutil.copytree(keyed_root, root, symlinks=True)
    workspace = load_workspace(root)
    channels.create_channel(workspace, EDGE, now=NOW)
    for version in (1, 2):
        publish(workspace, version)
    channels.set_alias(workspace, "stable", EDGE, now=NOW)
    return root


@pytest.fixture
def kept(kept_root: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(kept_root, tmp_path / "workspace", symlinks=True)
    workspace = load_workspace(tmp_path / "workspace")
    age(workspace)
    return workspace


def age(workspace: Workspace) -> None:
    """Make every file as old as the tests' clock: what decides is when it was last named."""
    for path in workspace.channel_tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (NOW.timestamp(), NOW.timestamp()))


def missing(workspace: Workspace, now: datetime, *, deep: bool = False) -> list[Finding]:
    return inventory.find_missing(workspace, now=now, deep=deep, progress=Silent())


def test_orphans_stay_for_the_grace_time(kept: Workspace, now: datetime) -> None:
    """Weakness 19: clients that hold the previous index still find all that it names."""
    gone = newest(kept, EDGE).files
    old_index = layout.read_channels(kept).device(EDGE, DEVICE).index
    first = layout.read_index(kept, EDGE, DEVICE).full(1)
    expiry.expire_images(kept, EDGE, 1, now=now + WEEK)
    orphans.collect(kept, now=now + 2 * WEEK - timedelta(seconds=1))
    for file in first.files:
        assert layout.local_path(kept, file.path).is_file()
    assert layout.local_path(kept, old_index).is_file()
    collected = orphans.collect(kept, now=now + 2 * WEEK + timedelta(seconds=1))
    removed = {str(path.relative_to(kept.channel_tree)) for path in collected.files}
    for file in first.files:
        assert {file.path[1:], f"{file.path[1:]}.asc"} <= removed
    assert {old_index[1:], f"{old_index[1:]}.asc"} <= removed
    assert all(layout.local_path(kept, file.path).is_file() for file in gone)
    assert [state.serial for state in layout.states(kept)] == [layout.current_serial(kept)]
    assert missing(kept, now, deep=True) == []
    assert orphans.collect(kept, now=now + 3 * WEEK).files == []


def test_gc_only_looks_when_it_is_told_so(kept: Workspace, now: datetime) -> None:
    channels.remove_channel(kept, EDGE, now=now, force=True)
    before = snapshot(kept.channel_tree)
    would = orphans.collect(kept, now=now + 2 * WEEK, dry_run=True)
    assert snapshot(kept.channel_tree) == before
    assert would == orphans.collect(kept, now=now + 2 * WEEK)
    assert would.size > 0
    left = {path.name for path in kept.channel_tree.iterdir()}
    assert left == {"channels.json", "channels.json.asc", "gpg", "pool", "state", "states"}


def test_what_others_have_put_there_is_not_ours_to_remove(kept: Workspace, now: datetime) -> None:
    strangers = [kept.channel_tree / "robots.txt", kept.channel_tree / EDGE / "notes.txt"]
    for path in strangers:
        path.write_text("hands off\n")
    age(kept)
    orphans.collect(kept, now=now + 9 * WEEK)
    assert all(path.is_file() for path in strangers)


def test_a_file_of_a_killed_run_goes_when_it_is_old(kept: Workspace, now: datetime) -> None:
    """Weakness 18: nothing names it, so it is in nobody's way, and not for ever."""
    stray = kept.channel_tree / f"pool/rootfs-{'0' * 64}.tar.xz"
    stray.write_bytes(b"cut short")
    os.utime(stray, ((now + WEEK).timestamp(),) * 2)
    orphans.collect(kept, now=now + WEEK)
    assert stray.is_file()
    orphans.collect(kept, now=now + 3 * WEEK)
    assert not stray.exists()


def test_nothing_is_removed_when_an_index_cannot_be_read(kept: Workspace, now: datetime) -> None:
    index = layout.local_path(kept, layout.read_channels(kept).device(EDGE, DEVICE).index)
    text = index.read_bytes()
    for damage in (lambda: index.write_text("{"), index.unlink):
        damage()
        before = snapshot(kept.channel_tree)
        with pytest.raises(DataError, match=r"index-.*\.json"):
            orphans.collect(kept, now=now + 9 * WEEK)
        assert snapshot(kept.channel_tree) == before
        index.write_bytes(text)


def test_everything_that_is_named_and_lacking_is_reported(kept: Workspace, now: datetime) -> None:
    assert missing(kept, now, deep=True) == []
    image = newest(kept, EDGE)
    entry = layout.read_channels(kept).device("stable", DEVICE)
    lacking = {
        f"{image.files[0].path}.asc",
        image.files[-1].path,
        f"{entry.index}.asc",
        f"/states/{layout.current_serial(kept)}/gpg/blacklist.tar.xz.asc",
    }
    for path in lacking:
        layout.local_path(kept, path).unlink()
    found = {finding.path: finding for finding in missing(kept, now)}
    assert set(found) == lacking
    assert {finding.problem for finding in found.values()} == {"is missing"}
    assert "index-" in found[image.files[-1].path].named_by


def test_a_device_keyring_is_looked_for_where_it_is(kept: Workspace, now: datetime) -> None:
    """Weakness 24, and its other half: it is reported when it is gone."""
    channels.set_device_keyring(kept, EDGE, DEVICE, now=now)
    assert missing(kept, now, deep=True) == []
    keyring = layout.read_channels(kept).device(EDGE, DEVICE).keyring
    assert keyring is not None
    layout.local_path(kept, keyring["path"]).unlink()
    assert keyring["path"] in {finding.path for finding in missing(kept, now)}


@pytest.mark.parametrize("deep", [False, True])
def test_what_was_changed_is_found_by_looking_inside(
    kept: Workspace, now: datetime, *, deep: bool
) -> None:
    rootfs, device, version = (
        layout.local_path(kept, file.path) for file in newest(kept, EDGE).files
    )
    content = bytearray(rootfs.read_bytes())
    content[-1] ^= 1
    rootfs.write_bytes(content)
    shutil.copy(f"{version}.asc", f"{device}.asc")
    version.write_bytes(version.read_bytes()[:-1])
    problems = [f"{each.path} {each.problem}" for each in missing(kept, now, deep=deep)]

    def is_found(path: str, problem: str) -> bool:
        return any(path in each and problem in each for each in problems)

    assert is_found(rootfs.name, "has the sha256") == deep
    assert is_found(device.name, "is refused") == deep
    assert is_found(f"/{EDGE}/{DEVICE}/{version.name}", "bytes, not")


def test_other_states_are_looked_at_as_long_as_they_live(kept: Workspace, now: datetime) -> None:
    old = newest(kept, EDGE).files[0].path
    channels.remove_channel(kept, EDGE, now=now + WEEK, force=True)
    layout.local_path(kept, old).unlink()
    assert old in {finding.path for finding in missing(kept, now + WEEK)}
    assert missing(kept, now + 3 * WEEK) == []


def rotate(workspace: Workspace, level: KeyringType, now: datetime) -> tuple[Path, Path]:
    """Make a new key of a level and publish a keyring of both; return the old ring and the new."""
    home = workspace.gpg_home / level
    old, both = workspace.root / "old.gpg", home / "public.gpg"
    shutil.copy(both, old)
    shutil.rmtree(home)
    Signer(workspace.gpg_home).generate(level)
    new = workspace.root / "new.gpg"
    shutil.copy(both, new)
    both.write_bytes(old.read_bytes() + new.read_bytes())
    with editing.edit(workspace, now=now, purpose="test") as edit:
        tarball = keyrings.keyring_tarball(level, both.read_bytes(), now=now)
        edit.put_keyring(level, tarball, signed_by=SIGNED_BY[level])
    return old, new


def test_after_a_key_change_everything_is_signed_again(
    kept: Workspace, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = KeyringType.IMAGE_SIGNING
    old, new = rotate(kept, level, now)
    before = snapshot(kept.channel_tree)
    would = resign.resign_all(kept, now=now, progress=Silent(), dry_run=True)
    assert snapshot(kept.channel_tree) == before

    def signed_by(ring: Path, path: str) -> bool:
        data = layout.local_path(kept, path)
        try:
            trust.verify(
                data, Path(f"{data}.asc"), keyring=ring, blacklist=None, what=path, level=level
            )
        except TrustError:
            return False
        return True

    # Interrupted, it has left every pair good, and goes on where it stopped.
    original, count = SigningService.sign, 0

    def interrupted(self: SigningService, *words: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        original(self, *words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(SigningService, "sign", interrupted)
        with pytest.raises(KeyboardInterrupt):
            resign.resign_all(kept, now=now, progress=Silent())
    assert sorted(map(str, map(signed_by, [new] * len(would), would))).count("True") == 3
    assert all(signed_by(new, path) or signed_by(old, path) for path in would)
    assert missing(kept, now, deep=True) == []
    rest = resign.resign_all(kept, now=now, progress=Silent())
    assert len(rest) == len(would) - 3
    assert all(signed_by(new, path) for path in would)
    assert missing(kept, now, deep=True) == []
    data = {
        name for name, digest in before.items() if not name.endswith(".asc") and "state" not in name
    }
    after = snapshot(kept.channel_tree)
    assert {name: before[name] for name in data} == {name: after[name] for name in data}
    assert resign.resign_all(kept, now=now, progress=Silent()) == []


def test_a_key_that_clients_do_not_know_signs_nothing(kept: Workspace, now: datetime) -> None:
    home = kept.gpg_home / KeyringType.IMAGE_SIGNING
    shutil.rmtree(home)
    Signer(kept.gpg_home).generate(KeyringType.IMAGE_SIGNING)
    before = snapshot(kept.channel_tree)
    with pytest.raises(TrustError, match="is not in the published keyring") as caught:
        resign.resign_all(kept, now=now, progress=Silent())
    assert caught.value.hint
    assert snapshot(kept.channel_tree) == before


def test_the_pipeline_keeps_a_tree_up(kept: Workspace, now: datetime) -> None:
    channels.set_device_keyring(kept, EDGE, DEVICE, now=now)
    first = layout.read_channels(kept)
    upkeep.keep_up(kept, progress=Silent(), now=now + timedelta(days=1))
    assert layout.read_channels(kept) == first
    late = now + timedelta(days=25)
    upkeep.keep_up(kept, progress=Silent(), now=late)
    found = layout.read_channels(kept)
    assert found.expires == (late + timedelta(days=30)).timestamp()
    assert found.device(EDGE, DEVICE).keyring != first.device(EDGE, DEVICE).keyring
    assert missing(kept, late, deep=True) == []
    assert first.serial is not None
    assert len(layout.states(kept)) < first.serial


def test_a_workspace_without_a_tree_needs_no_upkeep(tmp_path: Path, now: datetime) -> None:
    (tmp_path / "coreimage.toml").touch()
    upkeep.keep_up(load_workspace(tmp_path), progress=Silent(), now=now)
    assert {path.name for path in tmp_path.iterdir()} == {"coreimage.toml"}
