"""Attacks on the flash tool, one by one: refused with the reason, and what is honest works after.

The letters and numbers are those of our list of attacks: A the start of trust, B arbitrary
software, C wrong software, D rollback, E freeze, F fast-forward, G mix and match, K keys.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.errors import CoreImageError, DataError, TrustError, UnavailableError
from coreimage.lib import openpgp, run
from coreimage.lib.gpg import Signer
from coreimage.model.index import Index
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys import keychange, keyrings, rotation
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import layout
from tests.integration import channel_tree, liar
from tests.integration.attacks import EXPIRY, Client, Thief, served, small_masters
from tests.integration.channel_tree import CHANNEL, DEVICE, NOW
from tests.support.foreign_keys import foreign_gpg

SIGNING, MASTER = KeyringType.IMAGE_SIGNING, KeyringType.IMAGE_MASTER
OTHER = "debian-core/13/other"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_masters(monkeypatch)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two channels; what was served at its first image is kept beside it."""
    home = tmp_path_factory.mktemp("attacks")
    with pytest.MonkeyPatch.context() as patch:
        small_masters(patch)
        workspace = channel_tree.make_workspace(home / "workspace")
    channels.create_channel(workspace, OTHER, now=NOW)
    channel_tree.publish(workspace, 1)
    channel_tree.publish(workspace, 1, channel=OTHER)
    served(workspace, home / "first")
    channel_tree.publish(workspace, 2, rootfs={"system/etc/hostname": b"second\n"})
    return home


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Workspace:
    return load_workspace(
        Path(shutil.copytree(made / "workspace", tmp_path / "workspace", symlinks=True))
    )


@pytest.fixture
def first(made: Path, tmp_path: Path) -> Path:
    """What was served when there was one image."""
    return Path(shutil.copytree(made / "first", tmp_path / "first"))


@pytest.fixture
def server(workspace: Workspace, tmp_path: Path) -> Iterator[liar.Liar]:
    with liar.serving(served(workspace, tmp_path / "www")) as found:
        yield found


@pytest.fixture
def thief(workspace: Workspace, server: liar.Liar, tmp_path: Path) -> Thief:
    del server
    return Thief(workspace, tmp_path / "www")


@pytest.fixture
def client(workspace: Workspace, tmp_path: Path) -> Client:
    pinned = tmp_path / "pinned.tar.xz"
    shutil.copy(workspace.archive_master, pinned)
    return Client(tmp_path / "client", pinned)


def refused(
    client: Client,
    server: liar.Liar,
    says: str,
    *,
    kind: type[CoreImageError] = TrustError,
    **options: object,
) -> None:
    with pytest.raises(kind, match=says) as raised:
        client.fetch(server.url, **options)  # type: ignore[arg-type]
    assert type(raised.value) is kind
    if kind is TrustError:
        assert raised.value.exit_code == 76


def honest_again(
    client: Client, server: liar.Liar, workspace: Workspace, root: Path, version: int = 2
) -> None:
    """The tree as its owner publishes it next is believed."""
    server.lies.clear()
    while (layout.read_channels(workspace).serial or 0) <= client.serial:
        channels.refresh(workspace, now=NOW, force=True)
    shutil.rmtree(root)
    served(workspace, root)
    assert client.fetch(server.url) == version


# A. Trust start


def test_a1_first_contact_with_a_root_that_is_not_the_pinned_one(
    client: Client, server: liar.Liar, keyed_root: Path, workspace: Workspace, thief: Thief
) -> None:
    mine = client.archive_master.read_bytes()
    shutil.copy(keyed_root / "trust/archive-master.tar.xz", client.archive_master)
    refused(client, server, "image-master.*not in the keyring")
    client.archive_master.write_bytes(mine)
    honest_again(client, server, workspace, thief.root)


@pytest.mark.parametrize("missing", ["gpg/image-master.tar.xz", "gpg/image-master.tar.xz.asc"])
def test_a2_a_chain_that_does_not_start_at_the_root(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, missing: str
) -> None:
    (thief.root / missing).unlink()
    refused(client, server, "image-master")
    honest_again(client, server, workspace, thief.root)


def test_a3_without_tls_verification_signatures_decide(
    client: Client, thief: Thief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENSSL_CONF", os.devnull)
    key, pem = tmp_path / "key.pem", tmp_path / "both.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    run.run([*argv, "-keyout", key, "-out", pem])
    pem.write_text(pem.read_text() + key.read_text())
    with liar.serving(thief.root, certificate=pem) as secure:
        refused(client, secure, "certificate", kind=UnavailableError)
        for path in ("/channels.json", thief.index_path(), "/gpg/blacklist.tar.xz"):
            secure.lies[path] = liar.flipped
            refused(client, secure, "data was changed", verify_tls=False)
            secure.lies.clear()
        assert client.fetch(secure.url, verify_tls=False) == 2


# B. Arbitrary software


@pytest.mark.parametrize("which", ["channels", "index"])
def test_b1_unsigned(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, which: str
) -> None:
    path = "/channels.json" if which == "channels" else thief.index_path()
    (thief.root / f"{path[1:]}.asc").unlink()
    refused(client, server, "has no signature")
    honest_again(client, server, workspace, thief.root)


@pytest.mark.parametrize("which", ["channels", "index"])
def test_b2_b6_b7_b8_signatures_that_are_not_the_one_good_one(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, which: str
) -> None:
    name = "channels.json" if which == "channels" else thief.index_path()[1:]
    path, signature = thief.root / name, thief.root / f"{name}.asc"
    good = openpgp.dearmor(signature.read_bytes(), name="x")
    with foreign_gpg() as gpg:
        gpg.make("stranger")
        strange = gpg.sign(path, gpg.home / "strange").read_bytes()
        private = workspace.gpg_home / SIGNING / "private-keys-v1.d"
        shutil.copytree(private, gpg.home / private.name, dirs_exist_ok=True)
        gpg.gpg("--import", thief.store.public_keyring(SIGNING))
        key = thief.store.fingerprint(SIGNING)
        weak = gpg.sign(path, gpg.home / "weak", "-u", key, "--digest-algo", "SHA1").read_bytes()
        gpg.gpg("-u", key, "--armor", "--output", gpg.home / "clear", "--clear-sign", path)
        gpg.gpg("-u", key, "--output", gpg.home / "attached", "--sign", path)
        clear, attached = ((gpg.home / each).read_bytes() for each in ("clear", "attached"))
    for wrong, says in (
        (strange, "not in the keyring"),  # B2
        (good + good, "more than one"),  # B6: one key twice is not two
        (good + strange, "more than one|not in"),  # B7
        (clear, "refused"),
        (attached, "refused"),
        (good + b"\xb4\x01x", "refused"),
        (weak, "weaker than SHA-256|refused"),  # B8
        (b"", "no usable signature"),
    ):
        signature.write_bytes(wrong)
        refused(client, server, says)
    honest_again(client, server, workspace, thief.root)


def test_b3_a_key_that_was_blacklisted(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Its keyring still has it, as with a thief's help; the blacklist decides."""
    old = thief.store.fingerprint(SIGNING)
    rotate(workspace, SIGNING)
    revoke(workspace, old)
    shutil.rmtree(thief.root)
    served(workspace, thief.root)
    thief.store.ban(thief.store.keys(SIGNING)[-1])
    both = b"".join(key.data for key in [*thief.store.retired(SIGNING), *thief.store.keys(SIGNING)])
    tarball = keyrings.keyring_tarball(SIGNING, both, now=NOW)
    thief.write("gpg/image-signing.tar.xz", tarball, key=MASTER)
    content = (thief.root / "channels.json").read_bytes()
    shutil.copytree(workspace.gpg_home / SIGNING, workspace.root / "old", dirs_exist_ok=True)
    ring = workspace.gpg_home / SIGNING / "public.gpg"
    ring.write_bytes(both)
    thief.write("channels.json", content, fingerprint=old)
    refused(client, server, "blacklisted")


def test_b4_the_right_kind_of_key_for_the_wrong_role(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    content = (thief.root / "channels.json").read_bytes()
    for key in (KeyringType.DEVICE_SIGNING, MASTER, KeyringType.ARCHIVE_MASTER):
        thief.write("channels.json", content, key=key)
        refused(client, server, r"channels\.json.*not in the keyring")
    thief.write("channels.json", content)
    for name, key in (
        ("image-signing", SIGNING),
        ("image-signing", KeyringType.ARCHIVE_MASTER),
        ("blacklist", SIGNING),
        ("image-master", MASTER),
    ):
        path = thief.root / f"gpg/{name}.tar.xz"
        right = Path(f"{path}.asc").read_bytes()
        thief.write(f"gpg/{name}.tar.xz", path.read_bytes(), key=key)
        refused(client, server, rf"{name}\.tar\.xz.*not in the keyring")
        Path(f"{path}.asc").write_bytes(right)
    honest_again(client, server, workspace, thief.root)


def test_b5_signatures_of_two_files_exchanged(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    index = thief.index_path()[1:]
    one, two = thief.root / "channels.json.asc", thief.root / f"{index}.asc"
    signatures = one.read_bytes(), two.read_bytes()
    two.write_bytes(signatures[0])
    refused(client, server, "signature belongs to other data")
    one.write_bytes(signatures[1])
    refused(client, server, "signature belongs to other data")
    honest_again(client, server, workspace, thief.root)


# C. Wrong software


def test_c1_an_image_of_another_channel_with_right_hashes(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Also when channels.json binds it: the image says what it was made for."""
    other = Index.from_json((thief.root / thief.index_path(OTHER)[1:]).read_bytes())
    rebind(thief, replace(other, extra={**other.extra, "channel": CHANNEL}))
    refused(client, server, f"image 1 says that it is for channel '{OTHER}'")
    honest_again(client, server, workspace, thief.root)


def test_c2_a_path_that_leads_out(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    document = json.loads((thief.root / thief.index_path()[1:]).read_bytes())
    for path in (
        "/pool/../../etc/passwd",
        "//evil.example/x.tar.xz",
        "http://evil.example/x.tar.xz",
        "/pool/%2e%2e/x.tar.xz",
        "/pool/x\0.tar.xz",
        "/pool/x\n.tar.xz",
        "/pool/a b.tar.xz",
        "pool/x.tar.xz",
    ):
        file = document["images"][0]["files"][0]
        file["path"], file["signature"] = path, f"{path}.asc"
        rebind(thief, json.dumps(document).encode())
        refused(client, server, "is not a path inside", kind=DataError)
    found = thief.read()
    for path in ("/pool/../../etc/passwd", "//evil.example/index.json", "/a\0/index.json"):
        entry = replace(found.device(CHANNEL, DEVICE), index=path)
        channel = replace(found.channels[CHANNEL], devices={DEVICE: entry})
        thief.channels(channels={**found.channels, CHANNEL: channel})
        refused(client, server, "is not a path inside", kind=DataError)
    honest_again(client, server, workspace, thief.root)


def test_c2_a_symlink_in_a_tree_on_disk(
    client: Client, workspace: Workspace, thief: Thief, tmp_path: Path
) -> None:
    del workspace
    assert client.fetch(str(thief.root)) == 2
    secret = tmp_path / "secret"
    secret.write_text("x")
    pool = next((thief.root / "pool").glob("ubuntu-*.tar.xz"))
    for path in (thief.root / "pool").glob("*.tar.xz"):
        path.unlink()
        path.symlink_to(secret)
    del pool
    with pytest.raises(CoreImageError) as raised:
        client.fetch(str(thief.root))
    assert "x86" not in raised.value.message


def test_c3_the_index_of_another_channel(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Served in its place: not the bytes that were bound. Bound by a thief: not for this place."""
    mine, other = thief.index_path()[1:], thief.index_path(OTHER)[1:]
    for suffix in ("", ".asc"):
        shutil.copy(thief.root / f"{other}{suffix}", thief.root / f"{mine}{suffix}")
    refused(client, server, "has the sha256 [0-9a-f]{64}.*names [0-9a-f]{64}")
    found = thief.read()
    moved = replace(found.channels[CHANNEL], devices=found.channels[OTHER].devices)
    thief.channels(channels={**found.channels, CHANNEL: moved})
    refused(client, server, f"is for channel '{OTHER}', not '{CHANNEL}'")
    honest_again(client, server, workspace, thief.root)


def rebind(thief: Thief, index: Index | bytes) -> None:
    """Serve an index that channels.json binds, all signed."""
    import hashlib

    content = index if isinstance(index, bytes) else index.to_json().encode()
    thief.write(thief.index_path(), content)
    found = thief.read()
    entry = replace(
        found.device(CHANNEL, DEVICE),
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
    channel = replace(found.channels[CHANNEL], devices={DEVICE: entry})
    thief.channels(channels={**found.channels, CHANNEL: channel})


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


# G. Mix and match


def test_g1_new_channels_with_old_keyrings(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """An old blacklist with a new channels.json would bring a revoked key back."""
    old = shutil.copytree(thief.root / "gpg", thief.root.parent / "old-gpg")
    rotate(workspace, SIGNING)
    revoke(workspace, rotate(workspace, SIGNING))
    served(workspace, thief.root)
    for name in ("blacklist.tar.xz", "blacklist.tar.xz.asc"):
        shutil.copy(old / name, thief.root / "gpg" / name)
    refused(client, server, "the keyring 'blacklist' has the sha256 .* was published with")
    honest_again(client, server, workspace, thief.root)


def test_g1_the_server_publishes_between_two_requests(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, tmp_path: Path
) -> None:
    """Files of two states, once: asked again, and believed."""
    old = Path(shutil.copytree(thief.root, tmp_path / "before"))
    rotate(workspace, SIGNING)
    served(workspace, thief.root)

    def before(handler: liar.Handler, content: bytes) -> None:
        del content
        liar.honest(handler, (old / handler.path[1:]).read_bytes())

    for path in ("/gpg/image-signing.tar.xz", "/gpg/image-signing.tar.xz.asc"):
        server.lies[path] = liar.first(1, before)
    assert client.fetch(server.url) == 2


def test_g2_files_of_two_images_under_one_version(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """The root file system of one image in place of another's, where that is served."""
    index = Index.from_json((thief.root / thief.index_path()[1:]).read_bytes())
    one, two = (index.full(version).files[0].path[1:] for version in (1, 2))
    assert one != two
    for suffix in ("", ".asc"):
        shutil.copy(thief.root / f"{one}{suffix}", thief.root / f"{two}{suffix}")
    with pytest.raises((TrustError, UnavailableError)):
        client.fetch(server.url)
    honest_again(client, server, workspace, thief.root)


# K. Keys


def rotate(workspace: Workspace, level: KeyringType) -> str:
    """Rotate a key and return the old one."""
    old = Signer(workspace.gpg_home).fingerprint(level)
    keychange.carry_out(
        workspace, lambda: rotation.rotate(workspace, level, now=NOW), directory=None, now=NOW
    )
    return old


def revoke(workspace: Workspace, key: str) -> None:
    keychange.carry_out(
        workspace,
        lambda: rotation.revoke(workspace, key, force=True, now=NOW),
        directory=None,
        now=NOW,
    )


def test_k3_a_client_that_missed_three_rotations(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    assert client.fetch(server.url) == 2
    for level in (SIGNING, MASTER, SIGNING, MASTER, SIGNING, MASTER):
        rotate(workspace, level)
    honest_again(client, server, workspace, thief.root)


def test_k4_old_images_of_a_revoked_key_are_refused_and_new_ones_taken(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    assert client.fetch(server.url) == 2
    old = rotate(workspace, SIGNING)
    revoke(workspace, old)
    served(workspace, thief.root)
    refused(client, server, f"{old[-16:]}.*is refused: the key is")
    channel_tree.publish(
        workspace,
        3,
        rootfs={"system/etc/hostname": b"third\n"},
        device_files={**channel_tree.DEVICE_FILES, "assets/vmlinuz": b"another kernel"},
    )
    honest_again(client, server, workspace, thief.root, version=3)


def test_k4_a_stolen_master_cannot_make_itself_valid_again(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Everything from before the revocation, and a new state signed by keys of the thief's."""
    old_gpg = Path(shutil.copytree(thief.root / "gpg", thief.root.parent / "old-gpg"))
    stolen = rotate(workspace, MASTER)
    revoke(workspace, stolen)
    served(workspace, thief.root)
    assert client.fetch(server.url) == 2
    shutil.copytree(old_gpg, thief.root / "gpg", dirs_exist_ok=True)
    refused(client, server, f"{stolen[-16:]}.*revoked before")
    served(workspace, thief.root)
    assert client.fetch(server.url) == 2


@pytest.mark.parametrize(
    ("lie", "kind"),
    [(None, TrustError), (liar.failing, UnavailableError), (liar.stalled, UnavailableError)],
)
def test_k5_a_blacklist_that_cannot_be_fetched_is_not_an_empty_one(
    client: Client,
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    lie: liar.Behaviour | None,
    kind: type[CoreImageError],
) -> None:
    if lie is None:
        (thief.root / "gpg/blacklist.tar.xz").unlink()
    else:
        server.lies["/gpg/blacklist.tar.xz"] = lie
    refused(client, server, "blacklist", kind=kind)
    honest_again(client, server, workspace, thief.root)
