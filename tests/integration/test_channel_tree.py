"""Transactions on the channel tree: all or nothing, one at a time, never a bad pair."""

import os
import threading
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, DataError, NotFoundError
from coreimage.lib import files, trust
from coreimage.lib.gpg import Signer
from coreimage.model.channels import Channel, Channels
from coreimage.model.index import Image, ImageFile, ImageType, Index
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import editing, images, layout, switch
from tests.support.trees import snapshot


def test_a_channel_is_created_once(workspace: Workspace, now: datetime) -> None:
    assert channels.create_channel(workspace, "ubuntu-core/15.04/edge", now=now)
    with pytest.raises(CoreImageError, match="exists already"):
        channels.create_channel(workspace, "ubuntu-core/15.04/edge", now=now)
    assert not channels.create_channel(workspace, "ubuntu-core/15.04/edge", now=now, exist_ok=True)
    with pytest.raises(DataError, match="'keys'"):
        channels.create_channel(workspace, "keys", now=now)
    assert list(layout.read_channels(workspace).channels) == ["ubuntu-core/15.04/edge"]


def test_o8_an_exception_changes_nothing(workspace: Workspace, now: datetime) -> None:
    """Also weakness 17 of the contract: nothing is committed when the block failed."""
    channels.create_channel(workspace, "edge", now=now)
    before = snapshot(workspace.channel_tree)

    def break_half_way() -> None:
        with editing.edit(workspace, now=now, purpose="test") as edit:
            edit.put_index("edge", "generic_amd64", images.empty_index(now))
            edit.set_channel("other", Channel(devices={}))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        break_half_way()
    assert snapshot(workspace.channel_tree) == before


@pytest.mark.parametrize(("text", "says"), [(None, "is gone"), ("{", "is damaged: .*not JSON")])
def test_an_index_that_is_lost_or_damaged_is_named(
    workspace: Workspace, now: datetime, text: str | None, says: str
) -> None:
    channels.create_channel(workspace, "edge", now=now)
    with editing.edit(workspace, now=now, purpose="test") as edit:
        edit.put_index("edge", "generic_amd64", images.empty_index(now))
    path = layout.read_channels(workspace).device("edge", "generic_amd64").index
    index = layout.local_path(workspace, path)
    index.unlink()
    if text is not None:
        index.write_text(text)
    with pytest.raises(DataError, match=f"{index.name}' {says}") as caught:
        layout.read_index(workspace, "edge", "generic_amd64")
    assert "'coreimage image missing'" in caught.value.hint
    with pytest.raises(DataError, match=says):
        channels.set_device_keyring(workspace, "edge", "generic_amd64", now=now)


def test_a_state_that_clients_would_refuse_is_not_published(
    workspace: Workspace, now: datetime
) -> None:
    before = snapshot(workspace.channel_tree)
    level = KeyringType.IMAGE_SIGNING
    with (
        pytest.raises(CoreImageError, match="image-signing"),
        editing.edit(workspace, now=now, purpose="test") as edit,
    ):
        edit.put_keyring(level, b"noise", signed_by=KeyringType.IMAGE_MASTER)
    assert snapshot(workspace.channel_tree) == before


def test_an_edit_of_nothing_makes_no_state(workspace: Workspace, now: datetime) -> None:
    before = snapshot(workspace.channel_tree)
    with editing.edit(workspace, now=now, purpose="test"):
        pass
    assert snapshot(workspace.channel_tree) == before


def test_an_index_says_what_it_is_for(workspace: Workspace, now: datetime) -> None:
    channels.create_channel(workspace, "edge", now=now)
    with editing.edit(workspace, now=now, purpose="test") as edit:
        edit.put_index("edge", "generic_amd64", images.empty_index(now))
    index = layout.read_index(workspace, "edge", "generic_amd64")
    assert (index.extra["channel"], index.extra["device"]) == ("edge", "generic_amd64")
    state = (workspace.channel_tree / "state").readlink().name
    assert index.extra["serial"] == int(state)


def test_a_state_says_how_fresh_it_is_and_what_it_names(
    workspace: Workspace, now: datetime
) -> None:
    for name in ("edge", "stable"):
        channels.create_channel(workspace, name, now=now)
    with editing.edit(workspace, now=now, purpose="test") as edit:
        assert not edit.index("edge", "generic_amd64").images
        edit.put_index("edge", "generic_amd64", images.empty_index(now))
        staged = edit.index("edge", "generic_amd64")
    assert staged == layout.read_index(workspace, "edge", "generic_amd64")
    found = layout.read_channels(workspace)
    root = workspace.channel_tree
    assert found.serial == int((root / "state").readlink().name)
    assert found.expires == int((now + timedelta(days=30)).timestamp())
    assert found.keyrings == {
        path.name.removesuffix(".tar.xz"): files.sha256_of(path)
        for path in (root / "gpg").glob("*.tar.xz")
    }
    assert set(found.keyrings) >= {"image-master", "image-signing", "blacklist"}
    entry = found.device("edge", "generic_amd64")
    index = layout.local_path(workspace, entry.index)
    assert (entry.sha256, entry.size) == (files.sha256_of(index), index.stat().st_size)


def test_a_tree_of_before_gets_its_digests_with_the_next_edit(
    workspace: Workspace, now: datetime
) -> None:
    channels.create_channel(workspace, "edge", now=now)
    with editing.edit(workspace, now=now, purpose="test") as edit:
        edit.put_index("edge", "generic_amd64", images.empty_index(now))
        old = replace(edit.channels.device("edge", "generic_amd64"), sha256=None, size=None)
        edit.set_channel("edge", Channel(devices={"generic_amd64": old}))
    entry = layout.read_channels(workspace).device("edge", "generic_amd64")
    assert entry.sha256 == files.sha256_of(layout.local_path(workspace, entry.index))


def test_an_index_never_names_a_missing_file(workspace: Workspace, now: datetime) -> None:
    channels.create_channel(workspace, "edge", now=now)
    file = ImageFile(order=0, path="/pool/rootfs-0.tar.xz", checksum="0" * 64, size=1)
    image = Image(type=ImageType.FULL, version=1, files=[file])
    with (
        pytest.raises(NotFoundError, match="rootfs-0"),
        editing.edit(workspace, now=now, purpose="test") as edit,
    ):
        edit.put_index("edge", "generic_amd64", Index(generated_at=now, images=[image]))
    with (
        pytest.raises(NotFoundError, match="no channel 'other'"),
        editing.edit(workspace, now=now, purpose="test") as edit,
    ):
        edit.put_index("other", "generic_amd64", images.empty_index(now))


def test_old_states_and_links_stay(workspace: Workspace, now: datetime) -> None:
    for number in range(5):
        channels.create_channel(workspace, f"channel{number}", now=now)
    root = workspace.channel_tree
    assert [state.serial for state in layout.states(workspace)] == [1, 2, 3, 4, 5, 6]
    links = {name: str((root / name).readlink()) for name in switch.LINKS}
    assert links == switch.LINKS
    assert str((root / "state").readlink()) == "states/6"
    assert len(layout.read_channels(workspace).channels) == 5


def test_links_of_a_killed_run_are_swept(workspace: Workspace, now: datetime) -> None:
    stray = workspace.channel_tree / ".scratch-state-0123abcd"
    stray.symlink_to("states/99")
    channels.create_channel(workspace, "edge", now=now)
    assert not stray.is_symlink()


def test_o15_writers_wait_for_each_other(workspace: Workspace, now: datetime) -> None:
    threads = [
        threading.Thread(
            target=channels.create_channel, args=(workspace, f"c{number}"), kwargs={"now": now}
        )
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(layout.read_channels(workspace).channels) == ["c0", "c1", "c2", "c3"]


class Reader(threading.Thread):
    """A client that reads the tree over and over until it is told to stop."""

    def __init__(self, workspace: Workspace, scratch: Path) -> None:
        super().__init__()
        self._workspace = workspace
        self._scratch = scratch
        self._ring = Signer(workspace.gpg_home).public_keyring(KeyringType.IMAGE_SIGNING)
        self.done = threading.Event()
        self.seen: set[int] = set()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.done.is_set():
                self._read()
            self._read()
        except BaseException as error:  # noqa: BLE001  shown by the test
            self.error = error

    def _read(self) -> None:
        state = os.open(self._workspace.channel_tree / "state", os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in ("channels.json", "channels.json.asc"):
                descriptor = os.open(name, os.O_RDONLY, dir_fd=state)
                with os.fdopen(descriptor, "rb") as file:
                    (self._scratch / name).write_bytes(file.read())
        finally:
            os.close(state)
        data = self._scratch / "channels.json"
        self._verify(data)
        found = Channels.from_json(data.read_bytes())
        for name, channel in found.channels.items():
            for device in channel.devices.values():
                path = layout.local_path(self._workspace, device.index)
                self._verify(path)
                index = Index.from_json(path.read_bytes())
                assert index.extra["channel"] == name
                self.seen.add(int(index.extra["serial"]))

    def _verify(self, path: Path) -> None:
        signature = Path(f"{path}.asc")
        level = KeyringType.IMAGE_SIGNING
        trust.verify(
            path, signature, keyring=self._ring, blacklist=None, what=path.name, level=level
        )


def test_o8_a_reader_never_sees_a_bad_pair(
    workspace: Workspace, tmp_path: Path, now: datetime
) -> None:
    channels.create_channel(workspace, "edge", now=now)
    scratch = tmp_path / "reader"
    scratch.mkdir()
    reader = Reader(workspace, scratch)
    reader.start()
    for _ in range(25):
        with editing.edit(workspace, now=now, purpose="test") as edit:
            edit.put_index("edge", "generic_amd64", images.empty_index(now))
    reader.done.set()
    reader.join()
    assert reader.error is None
    assert len(reader.seen) > 3
