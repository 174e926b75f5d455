"""Keys that change while somebody else is at work: nothing is published by a key that has gone."""

import lzma
from collections.abc import Callable
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError
from coreimage.lib import files, gpg, ledger, openpgp, trust
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.keyring import KeyringType
from coreimage.model.publication import Publication
from coreimage.pipeline import publishing
from coreimage.publisher import publish as publisher
from coreimage.systemimage import store
from coreimage.systemimage.imports import importer, publications
from coreimage.systemimage.keys import keychange, resign, rotation, sums, usage
from coreimage.systemimage.operations import channels
from coreimage.systemimage.signing import service
from coreimage.systemimage.tree import inventory, layout, renewal
from tests.support.publications import SERIES, publish, rootfs_members, tarball

CHANNEL, DEVICE = "ubuntu-core/edge", "generic_amd64"
SIGNING, OWN = KeyringType.IMAGE_SIGNING, KeyringType.DEVICE_SIGNING
Ending = Callable[[Workspace, str, datetime], keychange.Change]


@pytest.fixture(autouse=True)
def small_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make masters of 2048 bits: real keys, in a tenth of the time."""
    for level in (KeyringType.ARCHIVE_MASTER, KeyringType.IMAGE_MASTER):
        monkeypatch.setitem(gpg.KEY_BITS, level, 2048)


@pytest.fixture
def ready(workspace: Workspace, now: datetime) -> Workspace:
    channels.create_channel(workspace, CHANNEL, now=now)
    publish(workspace, "20150511")
    return workspace


def import_newest(workspace: Workspace, now: datetime) -> None:
    importer.import_image(
        workspace,
        channel=CHANNEL,
        device=DEVICE,
        settings=workspace.settings.channels[CHANNEL],
        series=SERIES,
        progress=Silent(),
        now=now,
    )


def rotate(workspace: Workspace, level: KeyringType, now: datetime) -> str:
    """Let a new key sign, and everything be signed by it; return the old one."""
    old = Signer(workspace.gpg_home).fingerprint(level)

    def make() -> keychange.Change:
        return rotation.rotate(workspace, level, now=now)

    keychange.carry_out(workspace, make, directory=None, now=now)
    return old


def retired(workspace: Workspace, key: str, now: datetime) -> keychange.Change:
    return rotation.retire(workspace, SIGNING, key, force=False, now=now)


def revoked(workspace: Workspace, key: str, now: datetime) -> keychange.Change:
    return rotation.revoke(workspace, key, force=False, now=now)


def replace_the_key(workspace: Workspace, ending: Ending, now: datetime) -> str:
    """Rotate image-signing, sign everything anew, and let the old key go; return that."""
    old = rotate(workspace, SIGNING, now)
    resign.resign_all(workspace, now=now, progress=Silent())
    keychange.carry_out(workspace, lambda: ending(workspace, old, now), directory=None, now=now)
    return old


def before(
    monkeypatch: pytest.MonkeyPatch, place: object, name: str, meanwhile: Callable[[], object]
) -> None:
    """Let something happen once, just before a function is called for the first time."""
    original = getattr(place, name)
    done: list[object] = []

    def called(*args: object, **options: object) -> object:
        if not done:
            done.append(None)
            done[0] = meanwhile()
        return original(*args, **options)

    monkeypatch.setattr(place, name, called)


def problems(workspace: Workspace, now: datetime) -> list[inventory.Finding]:
    return inventory.find_missing(workspace, now=now, deep=True, progress=Silent())


@pytest.mark.parametrize("ending", [retired, revoked])
def test_an_import_that_began_before_signs_again(
    ready: Workspace, now: datetime, monkeypatch: pytest.MonkeyPatch, ending: Ending
) -> None:
    before(monkeypatch, importer, "publish", lambda: replace_the_key(ready, ending, now))
    import_newest(ready, now)
    assert len(layout.read_index(ready, CHANNEL, DEVICE).images) == 1
    assert problems(ready, now) == []
    new = Signer(ready.gpg_home).fingerprint(SIGNING)
    assert set(usage.signed_with(ready.channel_tree / "pool")) == {new}


def test_an_import_that_began_while_the_device_had_a_key_of_its_own(
    ready: Workspace, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_newest(ready, now)
    channels.set_device_keyring(ready, CHANNEL, DEVICE, now=now)
    publish(ready, "20150512", rootfs=tarball(rootfs_members(text="two")))

    def take_it_away() -> None:
        channels.set_device_keyring(ready, CHANNEL, DEVICE, now=now, remove=True)

    before(monkeypatch, importer, "publish", take_it_away)
    import_newest(ready, now)
    assert {image.version for image in layout.read_index(ready, CHANNEL, DEVICE).images} == {1, 2}
    assert problems(ready, now) == []


@pytest.mark.parametrize("ending", [retired, revoked])
def test_a_key_does_not_go_while_something_published_has_its_signature(
    ready: Workspace, now: datetime, ending: Ending
) -> None:
    """Also when that was published after the change was thought out."""
    import_newest(ready, now)
    signature = next((ready.channel_tree / "pool").glob("*.tar.xz.asc"))
    by_old = signature.read_bytes()
    old = rotate(ready, SIGNING, now)
    resign.resign_all(ready, now=now, progress=Silent())

    def make() -> keychange.Change:
        change = ending(ready, old, now)
        signature.write_bytes(by_old)
        return change

    with pytest.raises(CoreImageError, match="1 published files"):
        keychange.carry_out(ready, make, directory=None, now=now)
    assert problems(ready, now) == []
    assert Signer(ready.gpg_home).keys(KeyringType.BLACKLIST) == []


def test_signing_everything_again_undoes_nothing(
    ready: Workspace, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_newest(ready, now)
    channels.set_device_keyring(ready, CHANNEL, DEVICE, now=now)
    rotate(ready, OWN, now)

    def take_it_away() -> None:
        channels.set_device_keyring(ready, CHANNEL, DEVICE, now=now, remove=True)

    before(monkeypatch, renewal, "renew", take_it_away)
    resign.resign_all(ready, now=now, progress=Silent())
    assert problems(ready, now) == []


def test_a_package_is_signed_by_the_key_of_the_moment_it_appears(
    ready: Workspace, now: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "board.tar.xz"
    archive.write_bytes(lzma.compress(b"board"))
    board = store.Archive(file=archive, name="board", version="1.0", architecture="amd64")

    def replace_it() -> None:
        old = rotate(ready, SIGNING, now)
        keychange.carry_out(
            ready,
            lambda: rotation.retire(ready, SIGNING, old, force=True, now=now),
            directory=None,
            now=now,
        )

    before(monkeypatch, store, "_show", replace_it)
    store.publish(ready, "default", board, now=now)
    with layout.open_chain(ready, now=now) as chain:
        for path in ready.channel_tree.glob("store/default/*.asc"):
            data = path.with_suffix("")
            assert trust.is_good(chain, data, path, level=SIGNING), data.name


@pytest.mark.parametrize("ending", [retired, revoked])
def test_a_publication_is_signed_by_the_key_of_the_moment_it_appears(
    ready: Workspace,
    now: datetime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: Ending,
) -> None:
    (tmp_path / "rootfs").write_bytes(b"rootfs")
    publication = Publication(project="ubuntu-core", series=SERIES, version="20150512")
    before(monkeypatch, publisher, "fsync_tree", lambda: replace_the_key(ready, ending, now))
    publisher.publish(
        ready.publications,
        publication,
        artifacts={"rootfs.tar.gz": (tmp_path / "rootfs", sha256(b"rootfs").hexdigest())},
        provenance={},
        seal=partial(publishing.sealed, ready, publication),
        locks=ready.state / "locks",
    )
    with layout.open_chain(ready, now=now) as chain:
        publications.verify(ready.publications, publication, chain=chain)


def test_keys_stay_until_a_publication_that_was_signed_has_appeared(
    ready: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "SHA256SUMS").write_text("")
    signature = tmp_path / "SHA256SUMS.gpg"
    publication = Publication(project="ubuntu-core", series=SERIES, version="20150512")
    with publishing.sealed(ready, publication, tmp_path / "SHA256SUMS", signature):
        assert files.is_locked(ready.state / "locks/system-image.lock")
        key = openpgp.issuer(signature.read_bytes(), name="")
    assert key == Signer(ready.gpg_home).fingerprint(SIGNING)
    said = ledger.read(service.log_path(ready))[-1].fields
    assert said["name"] == f"{publication.path}/SHA256SUMS"


def test_a_publication_under_way_keeps_no_key(ready: Workspace, now: datetime) -> None:
    """What a killed publisher has left was never published."""
    left = publish(ready, "20150512")
    left.rename(left.with_name(".scratch-left"))
    key = Signer(ready.gpg_home).fingerprint(SIGNING)
    assert sums.count_signed(ready, key) == 1  # the one of 'ready'
    rotate(ready, SIGNING, now)
    signed = resign.resign_all(ready, now=now, progress=Silent())
    assert [each for each in signed if "SHA256SUMS" in each] == [
        f"ubuntu-core/{SERIES}/daily-preinstalled/20150511/SHA256SUMS"
    ]


def test_all_keyrings_are_read_from_one_state(
    ready: Workspace, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, read = layout.existing, []

    def existing(path: Path) -> Path:
        read.append(path.name)
        if len(read) == 2:
            rotate(ready, KeyringType.IMAGE_MASTER, now)
        return original(path)

    monkeypatch.setattr(layout, "existing", existing)
    with layout.open_chain(ready, now=now) as chain:
        assert len(chain.keyring(KeyringType.IMAGE_MASTER).fingerprints) == 1
    with layout.open_chain(ready, now=now) as chain:
        assert len(chain.keyring(KeyringType.IMAGE_MASTER).fingerprints) == 2


def test_a_file_that_comes_back_is_signed_by_the_key_it_now_needs(
    ready: Workspace, now: datetime
) -> None:
    import_newest(ready, now)
    channels.set_device_keyring(ready, CHANNEL, DEVICE, now=now)
    channels.set_alias(
        ready, "stable", CHANNEL, now=now
    )  # its version file is signed by the device
    channels.remove_channel(ready, "stable", now=now)
    channels.set_device_keyring(ready, CHANNEL, DEVICE, now=now, remove=True)
    channels.set_alias(ready, "stable", CHANNEL, now=now)
    assert problems(ready, now) == []


def test_the_pool_stays_signed_by_image_signing(ready: Workspace, now: datetime) -> None:
    """Also when the only device that has a file has a key of its own."""
    import_newest(ready, now)
    channels.set_device_keyring(ready, CHANNEL, DEVICE, now=now)
    rotate(ready, SIGNING, now)
    resign.resign_all(ready, now=now, progress=Silent())
    present = Signer(ready.gpg_home).fingerprint(SIGNING)
    assert set(usage.signed_with(ready.channel_tree / "pool")) == {present}
    assert resign.resign_all(ready, now=now, progress=Silent()) == []
    assert problems(ready, now) == []
