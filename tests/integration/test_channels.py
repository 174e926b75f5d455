"""Channels that follow others, against section 3 of the wire contract and its known weaknesses."""

import shutil
import tarfile
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.errors import CoreImageError, DataError, NotFoundError
from coreimage.lib import files, trust
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.channels import Channels
from coreimage.model.index import Image
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import editing, inventory, layout
from tests.conftest import NOW
from tests.integration import channel_tree
from tests.integration.channel_tree import DEVICE, tarball, version_files
from tests.support.trees import snapshot

EDGE = "ubuntu-core/15.04/edge"
OTHER = "ubuntu-core/15.04/other"


@pytest.fixture(scope="session")
def channels_root(keyed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two channels that have an image 1."""
    root = tmp_path_factory.mktemp("channels") / "workspace"
    shutil.copytree(keyed_root, root, symlinks=True)
    workspace = load_workspace(root)
    for name in (EDGE, OTHER):
        channels.create_channel(workspace, name, now=NOW)
        publish(workspace, 1, name)
    return root


@pytest.fixture
def edge(channels_root: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(channels_root, tmp_path / "workspace", symlinks=True)
    return load_workspace(tmp_path / "workspace")


def publish(workspace: Workspace, version: int, channel: str = EDGE, device: str = DEVICE) -> Image:
    rootfs = {"system/etc/hostname": f"{channel} {version}\n".encode()}
    return channel_tree.publish(
        workspace, version, channel=channel, device=device, rootfs=rootfs, device_files=rootfs
    )


def newest(workspace: Workspace, channel: str, device: str = DEVICE) -> Image:
    found = layout.read_index(workspace, channel, device).newest_full()
    assert found is not None
    return found


def told(workspace: Workspace, image: Image) -> dict[str, str]:
    """Return what an image's version tarball tells the device, by plain tarfile."""
    path = layout.local_path(workspace, image.files[-1].path)
    with tarfile.open(path) as tar:
        ini = tar.extractfile("system/etc/system-image/channel.ini")
        build = tar.extractfile("system/etc/ubuntu-build")
        assert ini is not None
        assert build is not None
        head, *lines = ini.read().decode().splitlines()
        assert head == "[service]"
        assert build.read().decode() == f"{image.version}\n"
    return dict(line.split(": ") for line in lines)


def is_sound(workspace: Workspace, now: datetime) -> bool:
    """Tell whether every file and signature is there, and what it should be."""
    return inventory.find_missing(workspace, now=now, deep=True, progress=Silent()) == []


def test_an_alias_has_its_own_index_and_version_tarballs(edge: Workspace, now: datetime) -> None:
    channels.set_alias(edge, "stable", EDGE, now=now)
    entry = layout.read_channels(edge).require("stable")
    assert (entry.alias, entry.redirect) == (EDGE, None)
    assert entry.devices[DEVICE].index.startswith(f"/stable/{DEVICE}/index-")
    ours, theirs = newest(edge, "stable"), newest(edge, EDGE)
    assert ours.version == theirs.version
    assert ours.files[:-1] == theirs.files[:-1]
    assert ours.files[-1].path == f"/stable/{DEVICE}/version-1.tar.xz"
    assert told(edge, ours) == {
        "channel": "stable",
        "device": DEVICE,
        "build_number": "1",
        "channel_target": EDGE,
        "version_detail": "",
    }
    assert "channel_target" not in told(edge, theirs)
    assert layout.read_index(edge, "stable", DEVICE).extra["channel"] == "stable"
    assert is_sound(edge, now)


def test_an_alias_follows_its_target_in_the_same_state(edge: Workspace, now: datetime) -> None:
    channels.set_alias(edge, "stable", EDGE, now=now)
    channels.set_redirect(edge, "old", EDGE, now=now)
    first = newest(edge, "stable").files[-1]
    publish(edge, 2)
    publish(edge, 1, device="mako")
    for state in layout.states(edge)[-2:]:
        found = state.channels
        assert set(found.channels["stable"].devices) == set(found.channels[EDGE].devices)
        assert found.channels["old"].devices == found.channels[EDGE].devices
    index = layout.read_index(edge, "stable", DEVICE)
    assert [image.version for image in index.images] == [1, 2]
    assert index.images[0].files[-1] == first  # made once, however often the target changes
    assert told(edge, newest(edge, "stable", "mako"))["device"] == "mako"
    assert is_sound(edge, now)


def test_o9_a_channel_is_never_absent_while_its_alias_changes(
    edge: Workspace, now: datetime
) -> None:
    channels.set_alias(edge, "stable", EDGE, now=now)
    seen: list[str | None] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            found = Channels.from_json((edge.channel_tree / "channels.json").read_bytes())
            channel = found.channels.get("stable")
            seen.append(channel.alias if channel and channel.devices else None)

    thread = threading.Thread(target=watch)
    thread.start()
    for target in (OTHER, EDGE, OTHER):
        channels.set_alias(edge, "stable", target, now=now)
    done.set()
    thread.join()
    assert set(seen) <= {EDGE, OTHER}
    assert seen
    assert is_sound(edge, now)


def test_files_of_an_alias_stay_what_they_were_when_it_changes(
    edge: Workspace, now: datetime
) -> None:
    """Both targets have an image 1: its version tarball lies elsewhere for the second one."""
    channels.set_alias(edge, "stable", EDGE, now=now)
    first = newest(edge, "stable").files[-1]
    channels.set_alias(edge, "stable", OTHER, now=now)
    second = newest(edge, "stable")
    assert second.files[-1].path != first.path
    assert second.files[-1].path.endswith("/version-1.tar.xz")
    assert told(edge, second)["channel_target"] == OTHER
    assert files.sha256_of(layout.local_path(edge, first.path)) == first.checksum
    channels.set_alias(edge, "stable", EDGE, now=now)
    assert newest(edge, "stable").files[-1].path == first.path


def test_a_new_target_is_told_even_if_it_has_the_same_files(edge: Workspace, now: datetime) -> None:
    channels.set_redirect(edge, OTHER, EDGE, device=DEVICE, now=now, force=True)
    for target in (EDGE, OTHER, EDGE):
        channels.set_alias(edge, "stable", target, now=now)
        assert told(edge, newest(edge, "stable"))["channel_target"] == target


def test_o14_an_alias_goes_back_only_when_it_is_allowed_to(edge: Workspace, now: datetime) -> None:
    publish(edge, 3)
    channels.set_alias(edge, "stable", EDGE, now=now)
    before = snapshot(edge.channel_tree)
    with pytest.raises(CoreImageError, match="has offered image 3") as caught:
        channels.set_alias(edge, "stable", OTHER, now=now)
    assert "--allow-downgrade" in caught.value.hint
    assert snapshot(edge.channel_tree) == before
    channels.set_alias(edge, "stable", OTHER, now=now, allow_downgrade=True)
    assert layout.read_index(edge, "stable", DEVICE).extra["downgrade"] is True
    # The target goes on; who was away may still have image 3.
    publish(edge, 2, OTHER)
    assert layout.read_index(edge, "stable", DEVICE).extra["downgrade"] is True
    publish(edge, 4, OTHER)
    index = layout.read_index(edge, "stable", DEVICE)
    assert "downgrade" not in index.extra
    assert index.extra["last_version"] == 4


def test_an_alias_that_ends_keeps_its_images_as_its_own(edge: Workspace, now: datetime) -> None:
    channels.set_alias(edge, "stable", EDGE, now=now)
    with pytest.raises(CoreImageError, match="follows channel"):
        publish(edge, 2, "stable")
    channels.unset_alias(edge, "stable", now=now)
    assert layout.read_channels(edge).require("stable").alias is None
    assert "channel_target" not in told(edge, newest(edge, "stable"))
    publish(edge, 2)
    assert newest(edge, "stable").version == 1
    publish(edge, 2, "stable")
    with pytest.raises(CoreImageError, match="is not an alias"):
        channels.unset_alias(edge, "stable", now=now)
    assert is_sound(edge, now)


def test_aliases_of_aliases_and_redirects_of_them_follow_too(
    edge: Workspace, now: datetime
) -> None:
    channels.set_alias(edge, "b", EDGE, now=now)
    channels.set_alias(edge, "a", "b", now=now)
    channels.set_redirect(edge, "c", "a", now=now)
    publish(edge, 2)
    found = layout.read_channels(edge)
    assert newest(edge, "a").version == 2
    assert told(edge, newest(edge, "a"))["channel_target"] == "b"
    assert found.channels["c"].devices == found.channels["a"].devices
    with pytest.raises(CoreImageError, match="circle"):
        channels.set_alias(edge, "b", "a", now=now)
    with pytest.raises(CoreImageError, match="itself"):
        channels.set_alias(edge, "b", "b", now=now)
    assert newest(edge, "b").version == 2


def test_one_device_may_be_redirected(edge: Workspace, now: datetime) -> None:
    publish(edge, 5, OTHER, "mako")
    channels.set_redirect(edge, OTHER, EDGE, device=DEVICE, now=now, force=True)
    publish(edge, 2)
    found = layout.read_channels(edge)
    assert found.device(OTHER, DEVICE).redirect == EDGE
    assert found.device(OTHER, DEVICE).index == found.device(EDGE, DEVICE).index
    assert found.device(OTHER, "mako").redirect is None
    with pytest.raises(CoreImageError, match="follows channel"):
        publish(edge, 9, OTHER)
    with pytest.raises(CoreImageError, match="images of its own") as caught:
        channels.set_redirect(edge, OTHER, EDGE, device="mako", now=now)
    assert "--force" in caught.value.hint
    with pytest.raises(NotFoundError, match="has no device 'flo'"):
        channels.set_redirect(edge, OTHER, EDGE, device="flo", now=now)
    channels.unset_redirect(edge, OTHER, device=DEVICE, now=now)
    assert set(layout.read_channels(edge).require(OTHER).devices) == {"mako"}
    with pytest.raises(NotFoundError, match="has no device"):
        channels.unset_redirect(edge, OTHER, device=DEVICE, now=now)


def test_what_others_follow_is_not_removed_without_force(edge: Workspace, now: datetime) -> None:
    channels.set_alias(edge, "stable", EDGE, now=now)
    channels.set_redirect(edge, OTHER, "stable", device=DEVICE, now=now, force=True)
    before = snapshot(edge.channel_tree)
    with pytest.raises(CoreImageError, match="is followed by 'stable'") as caught:
        channels.remove_channel(edge, EDGE, now=now)
    assert "--force" in caught.value.hint
    with pytest.raises(CoreImageError, match="is followed by 'stable'") as caught:
        channels.rename_channel(edge, EDGE, "new", now=now)
    assert "--force" in caught.value.hint
    would = channels.remove_channel(edge, EDGE, now=now, force=True, dry_run=True)
    assert snapshot(edge.channel_tree) == before
    changed = channels.remove_channel(edge, EDGE, now=now, force=True)
    assert changed == would == sorted([OTHER, EDGE, "stable"])
    found = layout.read_channels(edge).channels
    assert set(found) == {OTHER}
    assert found[OTHER].devices == {}


def test_a_new_name_is_told_to_devices_and_followers(edge: Workspace, now: datetime) -> None:
    channels.set_alias(edge, "stable", EDGE, now=now)
    channels.rename_channel(edge, EDGE, "daily", now=now, force=True, keep_redirect=True)
    found = layout.read_channels(edge)
    assert set(found.channels) == {"daily", "stable", EDGE, OTHER}
    assert (found.channels[EDGE].redirect, found.channels[EDGE].hidden) == ("daily", True)
    assert found.channels[EDGE].devices == found.channels["daily"].devices
    assert told(edge, newest(edge, "daily"))["channel"] == "daily"
    assert told(edge, newest(edge, "stable"))["channel_target"] == "daily"
    with pytest.raises(CoreImageError, match="exists already"):
        channels.rename_channel(edge, "daily", "stable", now=now, force=True)
    publish(edge, 2, "daily")
    assert newest(edge, "stable").version == 2
    assert is_sound(edge, now)


def test_numbers_outlive_their_channel(edge: Workspace, now: datetime) -> None:
    """A device of the old channel would take image 1 of a new one for what it has."""
    publish(edge, 3)
    channels.remove_channel(edge, EDGE, now=now)
    channels.create_channel(edge, EDGE, now=now)
    with editing.edit(edge, now=now, purpose="test") as edit:
        assert edit.index(EDGE, DEVICE).extra["last_version"] == 3
        assert edit.index(EDGE, "mako").extra == {}


def test_hidden_channels_are_shown_again(edge: Workspace, now: datetime) -> None:
    assert channels.set_hidden(edge, EDGE, hidden=True, now=now) == [EDGE]
    assert layout.read_channels(edge).require(EDGE).hidden
    assert channels.set_hidden(edge, EDGE, hidden=True, now=now) == []
    assert channels.set_hidden(edge, EDGE, hidden=False, now=now) == [EDGE]


def test_a_device_may_have_a_keyring_of_its_own(
    edge: Workspace, now: datetime, tmp_path: Path
) -> None:
    channels.set_alias(edge, "stable", EDGE, now=now)
    channels.set_device_keyring(edge, EDGE, DEVICE, now=now)
    for channel in (EDGE, "stable"):
        entry = layout.read_channels(edge).device(channel, DEVICE)
        assert entry.keyring is not None
        index = layout.local_path(edge, entry.index)
        verified = trust.verify(
            index,
            Path(f"{index}.asc"),
            keyring=Signer(edge.gpg_home).public_keyring(KeyringType.DEVICE_SIGNING),
            blacklist=None,
            what="index",
            level="device-signing",
        )
        assert verified.fingerprint
    assert entry.keyring is not None
    found = trust.inspect_keyring(
        layout.local_path(edge, entry.keyring["path"]),
        expected=KeyringType.DEVICE_SIGNING,
        directory=tmp_path,
    )
    assert found.info.model == DEVICE
    assert found.info.expiry == now + timedelta(days=31)
    publish(edge, 2)
    assert is_sound(edge, now)
    with pytest.raises(CoreImageError, match="follows channel"):
        channels.set_device_keyring(edge, "stable", DEVICE, now=now)
    channels.set_device_keyring(edge, EDGE, DEVICE, now=now, remove=True)
    assert channels.set_device_keyring(edge, EDGE, DEVICE, now=now, remove=True) == []
    assert layout.read_channels(edge).device("stable", DEVICE).keyring is None
    assert is_sound(edge, now)


def test_o10_channels_json_is_signed_anew_before_it_expires(edge: Workspace, now: datetime) -> None:
    assert channels.refresh(edge, now=now, force=True)
    expires = layout.read_channels(edge).expires
    assert expires == (now + timedelta(days=30)).timestamp()
    assert not channels.refresh(edge, now=now + timedelta(days=14))
    assert channels.refresh(edge, now=now + timedelta(days=16), dry_run=True)
    assert layout.read_channels(edge).expires == expires
    serial = layout.read_channels(edge).serial
    assert channels.refresh(edge, now=now + timedelta(days=16))
    found = layout.read_channels(edge)
    assert found.expires == (now + timedelta(days=46)).timestamp()
    assert serial is not None
    assert found.serial == serial + 1
    assert channels.refresh(edge, now=now, force=True)
    assert newest(edge, EDGE).version == 1


Attempt = Callable[[Workspace, datetime], object]


@pytest.mark.parametrize(
    ("attempt", "error", "words"),
    [
        (
            lambda w, t: channels.set_alias(w, "a", "gone", now=t),
            NotFoundError,
            "no channel 'gone'",
        ),
        (lambda w, t: channels.set_alias(w, "keys", EDGE, now=t), DataError, "'keys' cannot be"),
        (lambda w, t: channels.set_alias(w, "../a", EDGE, now=t), DataError, "cannot be"),
        (lambda w, t: channels.set_alias(w, OTHER, EDGE, now=t), CoreImageError, "of its own"),
        (lambda w, t: channels.set_redirect(w, OTHER, EDGE, now=t), CoreImageError, "of its own"),
        (lambda w, t: channels.remove_channel(w, "gone", now=t), NotFoundError, "'gone'"),
        (lambda w, t: channels.rename_channel(w, "gone", "new", now=t), NotFoundError, "'gone'"),
        (lambda w, t: channels.rename_channel(w, EDGE, "a b", now=t), DataError, "'a b'"),
        (lambda w, t: channels.set_hidden(w, "gone", hidden=True, now=t), NotFoundError, "'gone'"),
        (
            lambda w, t: channels.set_device_keyring(w, EDGE, "toaster", now=t),
            NotFoundError,
            "no device 'toaster'",
        ),
        (lambda w, t: channels.unset_redirect(w, EDGE, now=t), CoreImageError, "not redirected"),
    ],
)
def test_bad_input_changes_nothing(
    edge: Workspace, now: datetime, attempt: Attempt, error: type[CoreImageError], words: str
) -> None:
    before = snapshot(edge.channel_tree)
    with pytest.raises(error, match=words) as caught:
        attempt(edge, now)
    assert caught.value.hint
    assert snapshot(edge.channel_tree) == before


def test_a_missing_key_changes_nothing(edge: Workspace, now: datetime) -> None:
    before = snapshot(edge.channel_tree)
    level = edge.gpg_home / KeyringType.IMAGE_SIGNING
    level.rename(edge.gpg_home / "elsewhere")
    with pytest.raises(NotFoundError, match="'image-signing' key") as caught:
        channels.set_alias(edge, "stable", EDGE, now=now)
    assert caught.value.hint
    assert snapshot(edge.channel_tree) == before


def test_a_damaged_version_tarball_is_not_retold(edge: Workspace, now: datetime) -> None:
    path = layout.local_path(edge, newest(edge, EDGE).files[-1].path)
    path.write_bytes(tarball(version_files(7, channel=EDGE, device=DEVICE)))
    before = snapshot(edge.channel_tree)
    with pytest.raises(DataError, match="is damaged"):
        channels.set_alias(edge, "stable", EDGE, now=now)
    assert snapshot(edge.channel_tree) == before
