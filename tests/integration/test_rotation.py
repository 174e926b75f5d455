"""New keys for old, seen by clients: nobody is left behind, and what is revoked stays refused."""

import json
import lzma
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coreimage.config import SigningSettings, Workspace
from coreimage.errors import CoreImageError, NotFoundError, TrustError, UsageError
from coreimage.lib import gpg, openpgp, run, trust
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.keyring import KeyringType
from coreimage.systemimage import store
from coreimage.systemimage.keys import keychange, keyrings, resign, rotation, sums, usage
from coreimage.systemimage.keys.asked import Asked, Verb
from coreimage.systemimage.operations import channels, offers
from coreimage.systemimage.tree import layout
from tests.integration.channel_tree import CHANNEL, DEVICE, NOW, make_workspace, publish
from tests.support.foreign_keys import foreign_gpg
from tests.support.old_client import OldClient
from tests.support.publications import publish as publish_build
from tests.support.trees import snapshot

MASTER, SIGNING = KeyringType.IMAGE_MASTER, KeyringType.IMAGE_SIGNING
ROOT = KeyringType.ARCHIVE_MASTER


@pytest.fixture(autouse=True)
def small_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make masters of 2048 bits: real keys, in a tenth of the time."""
    for level in (ROOT, MASTER):
        monkeypatch.setitem(gpg.KEY_BITS, level, 2048)


@pytest.fixture(scope="session")
def served_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a channel and an image, to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        for level in (ROOT, MASTER):
            patch.setitem(gpg.KEY_BITS, level, 2048)
        made = make_workspace(tmp_path_factory.mktemp("served") / "workspace")
    publish(made, 1)
    return made.root


@pytest.fixture
def workspace(served_root: Path, tmp_path: Path) -> Workspace:
    from coreimage.config import load_workspace

    return load_workspace(Path(shutil.copytree(served_root, tmp_path / "workspace", symlinks=True)))


def rotate(workspace: Workspace, level: KeyringType) -> str:
    old = Signer(workspace.gpg_home).fingerprint(level)
    carry_out(workspace, lambda: rotation.rotate(workspace, level, now=NOW))
    return old


def carry_out(workspace: Workspace, make: Callable[[], keychange.Change]) -> None:
    keychange.carry_out(workspace, make, directory=None, now=NOW)


def retire(workspace: Workspace, level: KeyringType, *, force: bool = False) -> None:
    carry_out(workspace, lambda: rotation.retire(workspace, level, "", force=force, now=NOW))


def revoke(workspace: Workspace, key: str, *, force: bool = False) -> None:
    carry_out(workspace, lambda: rotation.revoke(workspace, key, force=force, now=NOW))


def issuer(workspace: Workspace, path: str) -> str:
    return openpgp.issuer((workspace.channel_tree / path).read_bytes(), name=path)


def chain(workspace: Workspace, *, pinned: Path | None = None) -> trust.Chain:
    scratch = workspace.cache / "client"
    scratch.mkdir(parents=True, exist_ok=True)
    return trust.open_chain(
        archive_master=pinned or workspace.archive_master,
        fetch=lambda path: workspace.channel_tree / path[1:],
        scratch=scratch,
        now=NOW,
    )


def payload(workspace: Workspace) -> Path:
    return next((workspace.channel_tree / "pool").glob("*.tar.xz"))


def verify_payload(workspace: Workspace) -> None:
    path = payload(workspace)
    chain(workspace).verify(path, Path(f"{path}.asc"), level=SIGNING, what=path.name)


def test_image_signing_rotates_with_overlap(workspace: Workspace, tmp_path: Path) -> None:
    device = OldClient(tmp_path / "device", workspace.archive_master)
    device.update(workspace.channel_tree, NOW)
    old = rotate(workspace, SIGNING)
    new = Signer(workspace.gpg_home).fingerprint(SIGNING)
    assert new != old
    assert chain(workspace).keyring(SIGNING).fingerprints == (old, new)
    assert issuer(workspace, "channels.json.asc") == new
    device.update(workspace.channel_tree, NOW)
    verify_payload(workspace)  # by the old key, which is valid until it is retired
    with pytest.raises(CoreImageError, match="published files are signed by") as raised:
        retire(workspace, SIGNING)
    assert "coreimage image resign" in raised.value.hint
    retire(workspace, SIGNING, force=True)
    assert chain(workspace).keyring(SIGNING).fingerprints == (new,)
    device.update(workspace.channel_tree, NOW)
    with pytest.raises(TrustError, match="not in the keyring"):
        verify_payload(workspace)


def test_everything_is_signed_again_then_the_old_key_goes(workspace: Workspace) -> None:
    place = publish_build(workspace, "20150511")
    foreign = publish_build(workspace, "20150512") / "SHA256SUMS"
    foreign.write_text(foreign.read_text().replace("0", "1"))  # no longer what was signed
    old = rotate(workspace, SIGNING)
    with pytest.raises(CoreImageError, match="published files are signed by"):
        retire(workspace, SIGNING)
    signed = resign.resign_all(workspace, now=NOW, progress=Silent())
    names = [name for name in signed if name.endswith("SHA256SUMS")]
    assert len(names) == 1  # what did not verify is not made good by signing it again
    assert "20150511" in names[0]
    assert sums.issuer(foreign) == old
    assert sums.issuer(place / "SHA256SUMS") == Signer(workspace.gpg_home).fingerprint(SIGNING)
    assert resign.resign_all(workspace, now=NOW, progress=Silent()) == []
    shutil.rmtree(foreign.parent)
    retire(workspace, SIGNING)
    verify_payload(workspace)
    found = chain(workspace)
    assert old not in found.keyring(SIGNING).fingerprints
    found.verify(place / "SHA256SUMS", place / "SHA256SUMS.gpg", level=SIGNING, what="SHA256SUMS")


def test_image_master_rotates_because_the_blacklist_does(
    workspace: Workspace, tmp_path: Path
) -> None:
    device = OldClient(tmp_path / "device", workspace.archive_master)
    device.update(workspace.channel_tree, NOW)
    old = rotate(workspace, MASTER)
    new = Signer(workspace.gpg_home).fingerprint(MASTER)
    for name in ("blacklist", "image-signing"):
        assert issuer(workspace, f"gpg/{name}.tar.xz.asc") == new
    assert chain(workspace).keyring(MASTER).fingerprints == (old, new)
    retire(workspace, MASTER)
    assert chain(workspace).keyring(MASTER).fingerprints == (new,)
    device.update(workspace.channel_tree, NOW)


def test_archive_master_rotates_when_devices_have_the_new_one(
    workspace: Workspace, tmp_path: Path
) -> None:
    early = Path(shutil.copy(workspace.archive_master, tmp_path / "early.tar.xz"))
    old = rotate(workspace, ROOT)
    assert issuer(workspace, "gpg/image-master.tar.xz.asc") == old
    assert issuer(workspace, "gpg/archive-master.tar.xz.asc") == old
    chain(workspace, pinned=early)
    both = Path(shutil.copy(workspace.archive_master, tmp_path / "both.tar.xz"))
    with pytest.raises(CoreImageError, match="is being introduced"):
        rotate(workspace, ROOT)
    retire(workspace, ROOT)
    assert issuer(workspace, "gpg/image-master.tar.xz.asc") != old
    chain(workspace, pinned=both)
    chain(workspace)
    with pytest.raises(TrustError, match="the key is not in the keyring"):
        chain(workspace, pinned=early)


def test_a_rotation_of_the_root_that_was_interrupted_goes_on(
    workspace: Workspace, tmp_path: Path
) -> None:
    early = Path(shutil.copy(workspace.archive_master, tmp_path / "early.tar.xz"))
    rotate(workspace, ROOT)
    both = workspace.archive_master.read_bytes()
    shutil.copy(early, workspace.archive_master)  # killed before the new one was pinned
    with pytest.raises(CoreImageError, match="is being introduced"):
        rotate(workspace, ROOT)
    assert workspace.archive_master.read_bytes() == both
    shutil.copy(early, workspace.archive_master)
    retire(workspace, ROOT)
    chain(workspace)


def test_k2_k3_a_device_that_was_offline_across_three_rotations_catches_up(
    workspace: Workspace, tmp_path: Path
) -> None:
    device = OldClient(tmp_path / "device", workspace.archive_master)
    device.update(workspace.channel_tree, NOW)
    for _ in range(3):
        for level in (SIGNING, MASTER):
            rotate(workspace, level)
            retire(workspace, level, force=True)
        channels.create_channel(
            workspace, f"c{workspace.channel_tree.joinpath('state').readlink().name}", now=NOW
        )
    assert len(chain(workspace).keyring(MASTER).fingerprints) == 1
    device.update(workspace.channel_tree, NOW)


def test_k1_a_new_image_master_is_signed_by_the_archive_master_alone(
    workspace: Workspace, tmp_path: Path
) -> None:
    """By the old image-master only: refused. By both: refused, one signature is the contract."""
    device = OldClient(tmp_path / "device", workspace.archive_master)
    device.update(workspace.channel_tree, NOW)
    store = Signer(workspace.gpg_home)
    old = rotate(workspace, MASTER)
    tarball = workspace.channel_tree / "state/gpg/image-master.tar.xz"
    signature = Path(f"{tarball}.asc")
    right = signature.read_bytes()
    by_old = store.signature(tarball, key=MASTER, fingerprint=old)
    both = openpgp.dearmor(right, name="x") + openpgp.dearmor(by_old, name="x")
    for wrong, says in ((by_old, "not in the keyring"), (both, "image-master")):
        signature.write_bytes(wrong)
        with pytest.raises(TrustError, match=says):
            chain(workspace)
        with pytest.raises(TrustError):
            device.update(workspace.channel_tree, NOW)
    signature.write_bytes(right)
    chain(workspace)
    device.update(workspace.channel_tree, NOW)


def test_k4_a_revoked_signing_key_signs_nothing_any_more(workspace: Workspace) -> None:
    with pytest.raises(CoreImageError, match="signs for 'image-signing' now"):
        revoke(workspace, Signer(workspace.gpg_home).fingerprint(SIGNING))
    old = rotate(workspace, SIGNING)
    before = snapshot(workspace.channel_tree)
    with pytest.raises(CoreImageError, match="published files are signed by"):
        revoke(workspace, old)
    assert snapshot(workspace.channel_tree) == before
    revoke(workspace, old[-16:].lower(), force=True)
    found = chain(workspace)
    assert found.keyring(KeyringType.BLACKLIST).fingerprints == (old,)
    assert old not in found.keyring(SIGNING).fingerprints
    with pytest.raises(TrustError):
        verify_payload(workspace)
    publish(workspace, 2, rootfs={"system/etc/hostname": b"new\n"})
    newest = layout.read_index(workspace, "debian-core/13/edge", "generic_amd64").full(2)
    path = workspace.channel_tree / newest.files[0].path[1:]
    chain(workspace).verify(path, Path(f"{path}.asc"), level=SIGNING, what="new")
    # It stays on the blacklist, whatever is published later.
    rotate(workspace, MASTER)
    keyrings.generate(workspace, progress=Silent(), now=NOW)
    assert chain(workspace).keyring(KeyringType.BLACKLIST).fingerprints == (old,)


def test_k4_a_revoked_master_leaves_its_keyring(workspace: Workspace) -> None:
    old = rotate(workspace, MASTER)
    revoke(workspace, old)
    found = chain(workspace)
    assert found.keyring(KeyringType.BLACKLIST).fingerprints == (old,)
    assert old not in found.keyring(MASTER).fingerprints
    with pytest.raises(CoreImageError, match="built in"):
        revoke(workspace, Signer(workspace.gpg_home).fingerprint(ROOT))
    with pytest.raises(NotFoundError, match="no key"):
        revoke(workspace, "0123456789ABCDEF")


@pytest.mark.parametrize("level", [SIGNING, MASTER])
def test_k6_a_lost_key_is_replaced_from_the_level_above(
    workspace: Workspace, tmp_path: Path, level: KeyringType
) -> None:
    device = OldClient(tmp_path / "device", workspace.archive_master)
    device.update(workspace.channel_tree, NOW)
    shutil.rmtree(workspace.gpg_home / level / "private-keys-v1.d")
    if level is SIGNING:
        with pytest.raises(NotFoundError, match="is not here"):
            channels.create_channel(workspace, "edge", now=NOW)
    rotate(workspace, level)
    channels.create_channel(workspace, "edge", now=NOW)
    device.update(workspace.channel_tree, NOW)
    chain(workspace)


def test_a_rotation_that_was_interrupted_goes_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before it published: the same key is taken. After: the rest is done, no third key."""
    with monkeypatch.context() as patch:
        patch.setattr(keyrings, "publish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rotate(workspace, SIGNING)
    store = Signer(workspace.gpg_home)
    following = store.next_key(SIGNING)
    assert following is not None
    with monkeypatch.context() as patch:
        patch.setattr(Signer, "promote", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rotate(workspace, SIGNING)
    channels.create_channel(workspace, "between", now=NOW)  # by the old key, which is valid still
    chain(workspace)
    rotate(workspace, SIGNING)
    assert store.fingerprint(SIGNING) == following.fingerprint
    assert len(store.keys(SIGNING)) == 2
    assert store.next_key(SIGNING) is None


def offline(workspace: Workspace, *levels: KeyringType) -> Workspace:
    signing = {level.value: SigningSettings(offline=True) for level in levels}
    settings = workspace.settings.model_copy(update={"signing": signing})
    return Workspace(root=workspace.root, settings=settings)


def test_masters_offline_in_two_steps(workspace: Workspace, tmp_path: Path) -> None:
    device = OldClient(tmp_path / "device", workspace.archive_master)
    device.update(workspace.channel_tree, NOW)
    store = Signer(workspace.gpg_home)
    with foreign_gpg() as safe:
        for level in (ROOT, MASTER):
            private = workspace.gpg_home / level / "private-keys-v1.d"
            shutil.copytree(private, safe.home / private.name, dirs_exist_ok=True)
            shutil.rmtree(private)
            safe.gpg("--import", store.public_keyring(level))
        place = offline(workspace, ROOT, MASTER)
        with pytest.raises(NotFoundError, match="is offline"):
            carry_out(place, lambda: rotation.rotate(place, SIGNING, now=NOW))
        usb = tmp_path / "usb"
        of_signing = Asked(verb=Verb.ROTATE, levels=[SIGNING])
        of_master = Asked(verb=Verb.ROTATE, levels=[MASTER])

        def sign() -> None:
            run.run(["sh", usb / "sign.sh"], env={"GNUPGHOME": str(safe.home)})

        # image-signing needs image-master only.
        _, waiting = keychange.carry_out(
            place, lambda: rotation.rotate(place, SIGNING, now=NOW), directory=usb, now=NOW
        )
        assert [each.name for each in waiting] == ["image-signing.tar.xz"]
        before = snapshot(place.channel_tree)
        with pytest.raises(NotFoundError, match=r"image-signing\.tar\.xz\.asc"):
            keychange.finish(place, usb, asked=of_signing, now=NOW)
        sign()
        wrong = (place.channel_tree / "state/gpg/blacklist.tar.xz.asc").read_bytes()
        right = (usb / "image-signing.tar.xz.asc").read_bytes()
        (usb / "image-signing.tar.xz.asc").write_bytes(wrong)
        for dry_run in (True, False):
            with pytest.raises(TrustError, match="data was changed"):
                keychange.finish(place, usb, asked=of_signing, now=NOW, dry_run=dry_run)
        assert snapshot(place.channel_tree) == before
        (usb / "image-signing.tar.xz.asc").write_bytes(right)
        keychange.finish(place, usb, asked=of_signing, now=NOW, dry_run=True)
        assert snapshot(place.channel_tree) == before
        keychange.finish(place, usb, asked=of_signing, now=NOW)
        device.update(place.channel_tree, NOW)
        assert len(chain(place).keyring(SIGNING).fingerprints) == 2
        with pytest.raises(NotFoundError, match="no change of keyrings is prepared"):
            keychange.finish(place, usb, asked=of_signing, now=NOW)
        shutil.rmtree(usb)

        # A new image-master, made where it will stay; the archive-master signs its keyring.
        with pytest.raises(NotFoundError, match="kept elsewhere"):
            carry_out(place, lambda: rotation.rotate(place, MASTER, now=NOW))
        safe.make("new master")
        new = tmp_path / "new.asc"
        new.write_bytes(safe.gpg("--armor", "--export", "new master"))
        rotation.adopt(place, MASTER, new)
        keychange.carry_out(
            place, lambda: rotation.rotate(place, MASTER, now=NOW), directory=usb, now=NOW
        )
        assert len(list(usb.glob("*.tar.xz"))) == 3
        sign()
        keychange.finish(place, usb, asked=of_master, now=NOW)
        device.update(place.channel_tree, NOW)
        assert len(chain(place).keyring(MASTER).fingerprints) == 2


def test_a_prepared_change_never_undoes_another(workspace: Workspace, tmp_path: Path) -> None:
    place = offline(workspace, MASTER)
    keychange.carry_out(
        place, lambda: rotation.rotate(place, SIGNING, now=NOW), directory=tmp_path / "usb", now=NOW
    )
    rotate(workspace, MASTER)
    asked = Asked(verb=Verb.ROTATE, levels=[SIGNING])
    with pytest.raises(CoreImageError, match="have changed since"):
        keychange.finish(place, tmp_path / "usb", asked=asked, now=NOW)
    with pytest.raises(UsageError, match="can sign here"):
        keychange.carry_out(
            workspace,
            lambda: rotation.renew(workspace, [SIGNING], lifetime=None, now=NOW),
            directory=tmp_path / "other",
            now=NOW,
        )


def test_generate_waits_for_a_master_that_is_offline(workspace: Workspace) -> None:
    from datetime import timedelta

    place = offline(workspace, ROOT, MASTER)
    nearly = NOW + timedelta(days=700)
    assert keyrings.generate(place, progress=Silent(), now=nearly) == [KeyringType.DEVICE_SIGNING]
    with pytest.raises(NotFoundError, match="is offline"):
        keyrings.generate(place, progress=Silent(), now=NOW + timedelta(days=731))


def command(workspace: Workspace, *words: str) -> run.Completed:
    argv = [sys.executable, "-m", "coreimage", "keyring", *words]
    place = ["--workspace", str(workspace.root)]
    return run.run([*argv, *place], env={"PYTHONPATH": ":".join(sys.path)}, check=False)


def test_the_commands_in_two_steps(workspace: Workspace, tmp_path: Path) -> None:
    usb, master = str(tmp_path / "usb"), workspace.gpg_home / MASTER
    with foreign_gpg() as safe:
        private = "private-keys-v1.d"
        shutil.copytree(master / private, safe.home / private, dirs_exist_ok=True)
        shutil.rmtree(master / private)
        safe.gpg("--import", str(master / "public.gpg"))
        outlined = command(workspace, "publish", "image-signing", "--prepare", usb, "--dry-run")
        assert outlined.stdout.startswith(b"would prepare: image-signing\n"), outlined.stderr
        assert not Path(usb).exists()
        rotating = ("rotate", "image-signing")
        prepared = command(workspace, *rotating, "--prepare", usb)
        assert prepared.stdout.startswith(b"prepared: image-signing"), prepared.stderr
        run.run(["sh", Path(usb, "sign.sh")], env={"GNUPGHOME": str(safe.home)})
    introduced = Signer(workspace.gpg_home).next_key(SIGNING)
    assert introduced is not None
    other, same = tmp_path / "other.asc", tmp_path / "same.gpg"
    other.write_bytes((master / "public.gpg").read_bytes())
    same.write_bytes(introduced.data)
    before = snapshot(workspace.channel_tree)
    hint = (
        "hint: prepared is 'coreimage keyring rotate image-signing' with the key "
        f"{openpgp.key_id(introduced.fingerprint)}: finish that, or prepare another change with "
        "--prepare DIR, which takes its place\n"
    )
    for words in (
        ["rotate", "image-master"],
        ["retire", "image-signing"],
        ["revoke", introduced.fingerprint],
        ["publish", "image-signing"],
        ["publish"],
        [*rotating, "--key", str(other)],
    ):
        refused = command(workspace, *words, "--finish", usb)
        assert (refused.status, refused.stdout) == (2, b""), words
        assert refused.stderr.decode().endswith(hint)
    assert command(workspace, *rotating, "--finish", usb, "--key", "/absent").status == 66
    dry = command(workspace, *rotating, "--finish", usb, "--dry-run")
    assert dry.stdout.startswith(b"would publish: image-signing"), dry.stderr
    assert snapshot(workspace.channel_tree) == before
    done = command(workspace, *rotating, "--finish", usb, "--key", str(same))
    assert done.stdout.startswith(b"published: image-signing"), done.stderr
    assert len(chain(workspace).keyring(SIGNING).fingerprints) == 2


def test_the_commands(workspace: Workspace) -> None:
    def coreimage(*words: str) -> run.Completed:
        return command(workspace, *words)

    dry = coreimage("rotate", "image-signing", "--dry-run")
    assert b"2 keys, signed by 'image-master' here" in dry.stdout, dry.stderr
    done = coreimage("rotate", "image-signing", "--json")
    assert json.loads(done.stdout)["keyrings"] == ["image-signing", "device-signing"]
    shown = json.loads(coreimage("show", "image-signing", "--json").stdout)
    old, new = shown["fingerprints"]
    assert (shown["signing"], shown["place"]) == (new, "here")
    used = coreimage("retire", "image-signing")
    assert (used.status, b"resign" in used.stderr) == (1, True)
    assert coreimage("revoke", old, "--force").status == 0
    listed = json.loads(coreimage("list", "--json").stdout)
    assert listed[-1]["fingerprints"] == [old]
    assert coreimage("publish", "image-signing", "--days", "9").status == 0
    assert coreimage("rotate", "blacklist").status == 2
    assert coreimage("rotate", "nothing").status == 66
    assert b"the log is whole" in coreimage("log", "--verify").stdout
    assert b"keyring" in coreimage("log").stdout
    path = workspace.state / "signatures.jsonl"
    path.write_text(path.read_text().replace("image-signing", "image-singing", 1))
    assert coreimage("log", "--verify").status == 76


def test_what_nothing_names_any_more_does_not_keep_an_old_key(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Indexes of states before, and packages in stores with their indexes of before."""
    place = offers.Where(workspace=workspace, channel=CHANNEL, device=DEVICE)
    offers.set_percentage(place, 1, 50, now=NOW)
    archive = tmp_path / "board.tar.xz"
    archive.write_bytes(lzma.compress(b"board"))
    for version in ("1.0", "1.1"):
        board = store.Archive(file=archive, name="board", version=version, architecture="amd64")
        store.publish(workspace, "default", board, now=NOW)
    store.withdraw(workspace, "default", "board", "1.0", now=NOW)
    old = rotate(workspace, SIGNING)
    signed = resign.resign_all(workspace, now=NOW, progress=Silent())
    assert len([path for path in signed if path.startswith("/store/")]) == 5
    retire(workspace, SIGNING)
    assert usage.signed_with(workspace.channel_tree)[old] == 0
    found = chain(workspace)
    for path in workspace.channel_tree.glob("store/default/**/*.asc"):
        found.verify(path.with_suffix(""), path, level=SIGNING, what=path.name)
