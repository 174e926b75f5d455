"""D rollback, E freeze, F fast-forward."""

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import DataError, TrustError
from coreimage.model.index import Index
from coreimage.systemimage.operations import channels
from tests.integration import channel_tree, liar
from tests.integration.channel_tree import CHANNEL, NOW
from tests.support.attacks import (
    EXPIRY,
    OTHER,
    SIGNING,
    Client,
    Thief,
    honest_again,
    rebind,
    refused,
    revoke,
    rotate,
    served,
)

# D. Rollback


def test_d1_an_older_channels_json(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, first: Path
) -> None:
    assert client.fetch(server.url) == 2
    old, new = (Thief(workspace, root).read().serial for root in (first, thief.root))
    for name in ("channels.json", "channels.json.asc"):
        shutil.copy(first / name, thief.root / name)
    refused(client, server, f"has serial {old}, and serial {new} of this server was seen")
    honest_again(client, server, workspace, thief.root)


def test_d2_an_older_index(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, first: Path
) -> None:
    """Under the name of the new one, with its own good signature."""
    old = first / Thief(workspace, first).index_path()[1:]
    new = thief.root / thief.index_path()[1:]
    for suffix in ("", ".asc"):
        shutil.copy(f"{old}{suffix}", f"{new}{suffix}")
    refused(client, server, "shows an index|has the sha256")
    honest_again(client, server, workspace, thief.root)


def test_d3_the_same_serial_or_version_with_other_bytes(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    assert client.fetch(server.url) == 2
    found = thief.read()
    hidden = replace(found.channels[OTHER], hidden=True)
    thief.channels(channels={**found.channels, OTHER: hidden}, serial=found.serial)
    refused(client, server, f"channels.json of serial {found.serial} has the sha256")
    index = Index.from_json((thief.root / thief.index_path()[1:]).read_bytes())
    newest = index.full(2)
    swapped = [replace(file, checksum="0" * 64) for file in newest.files]
    images = [image for image in index.images if image.version != 2]
    rebind(thief, replace(index, images=[*images, replace(newest, files=swapped)]))
    refused(client, server, "image 2 of .* and was seen before with")
    honest_again(client, server, workspace, thief.root)


def test_d4_versions_go_down_under_a_new_serial(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    assert client.fetch(server.url) == 2
    index = Index.from_json((thief.root / thief.index_path()[1:]).read_bytes())
    lower = replace(index, images=[image for image in index.images if image.version == 1])
    rebind(thief, lower)
    refused(client, server, "newest image of .* is 1, and 2 was seen before")
    # What the server says it means is done, and remembered.
    rebind(thief, replace(lower, extra={**lower.extra, "downgrade": True}))
    assert client.fetch(server.url) == 1
    honest_again(client, server, workspace, thief.root)


def test_d5_an_alias_that_goes_back(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """The original's weakness: an old channels.json makes a device follow an older channel."""
    alias = "debian-core/13/stable"
    channels.set_alias(workspace, alias, OTHER, now=NOW)
    old = served(workspace, thief.root.parent / "old")
    channels.set_alias(workspace, alias, CHANNEL, now=NOW)
    served(workspace, thief.root)
    assert client.fetch(server.url, channel=alias) == 2
    for name in ("channels.json", "channels.json.asc"):
        shutil.copy(old / name, thief.root / name)
    refused(client, server, "and serial .* was seen before", channel=alias)
    served(workspace, thief.root)
    assert client.fetch(server.url, channel=alias) == 2


def test_d6_a_clock_set_back_does_not_bring_expired_states_back(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    later = NOW + EXPIRY + timedelta(days=5)
    assert client.fetch(server.url) == 2
    kept = {
        name: (thief.root / name).read_bytes() for name in ("channels.json", "channels.json.asc")
    }
    channels.refresh(workspace, now=later, force=True)
    served(workspace, thief.root)
    assert client.fetch(server.url, now=later) == 2
    # Even if the thief can raise the serial: time has gone on for this client.
    for name, content in kept.items():
        (thief.root / name).write_bytes(content)
    thief.channels(serial=1000)
    refused(client, server, "channels.json expired on", now=NOW)
    served(workspace, thief.root)
    assert client.fetch(server.url, now=NOW) == 2


def test_d7_what_was_seen_survives_the_cache(
    client: Client,
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    first: Path,
    tmp_path: Path,
) -> None:
    assert client.fetch(server.url) == 2
    shutil.rmtree(tmp_path / "client/cache")
    shutil.rmtree(tmp_path / "client/scratch")
    old = shutil.copytree(thief.root, tmp_path / "kept")
    shutil.copytree(first, thief.root, dirs_exist_ok=True)
    refused(client, server, "was seen before")
    del old
    (memory,) = client.memory.glob("*.json")
    whole = memory.read_bytes()
    memory.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrustError, match="is damaged"):
        client.fetch(server.url)
    memory.write_bytes(whole)
    honest_again(client, server, workspace, thief.root)


# E. Freeze


def test_e1_a_state_past_its_expiry_is_an_error_not_up_to_date(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    end = NOW + EXPIRY
    assert client.fetch(server.url, now=end - timedelta(seconds=1)) == 2
    refused(client, server, rf"channels.json expired on {end:%F %T} UTC, and it is", now=end)
    channels.refresh(workspace, now=end)
    served(workspace, thief.root)
    assert client.fetch(server.url, now=end) == 2


def test_e1_a_server_without_freshness_is_an_exception_by_request(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """An original server: refused, unless told; never once it has said how fresh it is."""
    found = thief.read()
    bare = {
        name: replace(
            channel,
            devices={
                device: replace(entry, sha256=None, size=None)
                for device, entry in channel.devices.items()
            },
        )
        for name, channel in found.channels.items()
    }
    thief.channels(channels=bare, serial=None, expires=None, keyrings={})
    refused(client, server, "no serial and no expires and no keyrings")
    assert client.fetch(server.url, allow_unfresh=True) == 2
    honest_again(client, server, workspace, thief.root)
    thief.channels(channels=bare, serial=None, expires=None, keyrings={})
    refused(client, server, "has no serial, and serial", allow_unfresh=True)


def test_e2_expiry_during_a_long_download(client: Client, server: liar.Liar) -> None:
    """What was fresh at the start is so until the end: there is one time for a run."""
    nearly = NOW + EXPIRY - timedelta(seconds=1)
    seen = len(server.requests)
    assert client.fetch(server.url, now=nearly, meanwhile=lambda: None) == 2
    assert len(server.requests) > seen
    refused(client, server, "expired", now=nearly + timedelta(seconds=1))


# F. Fast-forward


def test_f1_clients_recover_from_the_highest_numbers_when_the_key_is_revoked(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    stolen = thief.store.fingerprint(SIGNING)
    index = Index.from_json((thief.root / thief.index_path()[1:]).read_bytes())
    rebind(thief, replace(index, images=[*index.images, replace(index.full(2), version=65535)]))
    thief.channels(serial=(1 << 53) - 1)
    with pytest.raises(TrustError, match="image 65535 says that it is for version '2'"):
        client.fetch(server.url)
    channels.refresh(workspace, now=NOW, force=True)
    served(workspace, thief.root)
    refused(client, server, f"serial {(1 << 53) - 1} of this server was seen before")
    rotate(workspace, SIGNING)
    channel_tree.publish(workspace, 3, rootfs={"system/etc/hostname": b"third\n"})
    revoke(workspace, stolen)
    served(workspace, thief.root)
    assert client.fetch(server.url) == 3


@pytest.mark.parametrize("field", ["serial", "expires"])
def test_f2_numbers_that_are_none(
    client: Client, server: liar.Liar, thief: Thief, field: str
) -> None:
    document = json.loads((thief.root / "channels.json").read_bytes())
    for value in (0, -1, 1.5, True, "1", 1 << 53, 1 << 63, None):
        for channel in document.values():
            channel[field] = value
        thief.write("channels.json", json.dumps(document).encode())
        refused(client, server, field, kind=TrustError if value is None else DataError)
    for channel in document.values():
        channel[field] = 1 << 52
    document[OTHER][field] = 1
    thief.write("channels.json", json.dumps(document).encode())
    refused(client, server, field, kind=DataError)


@pytest.mark.parametrize("field", ["version", "base", "size", "order"])
def test_f2_numbers_of_images_that_are_none(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, field: str
) -> None:
    document = json.loads((thief.root / thief.index_path()[1:]).read_bytes())
    image = document["images"][-1]
    place = image if field in {"version", "base"} else image["files"][0]
    for value in (-1, 1.5, True, "9" * 5000, 1 << 64):
        place[field] = value
        rebind(thief, json.dumps(document).encode())
        refused(client, server, field, kind=DataError)
    honest_again(client, server, workspace, thief.root)
