"""The signer: who may sign what, keys that are elsewhere, and the log of it all."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coreimage.config import SigningSettings, Workspace
from coreimage.errors import CommandError, CoreImageError, NotFoundError, RightsError, TrustError
from coreimage.lib import ledger, openpgp, run, trust
from coreimage.lib.gpg import Signer
from coreimage.model.channels import Channels
from coreimage.model.index import Index
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys import keyrings
from coreimage.systemimage.signing import service
from coreimage.systemimage.signing.policy import Purpose
from coreimage.systemimage.signing.service import SigningService
from tests.integration.channel_tree import NOW, tarball
from tests.support.foreign_keys import ForeignGpg, foreign_gpg

LEVEL = KeyringType.IMAGE_SIGNING


def document(kind: str) -> bytes:
    index = Index(generated_at=NOW, extra={"channel": "edge", "device": "amd64"})
    return {
        "channels": Channels(channels={}).to_json().encode(),
        "index": index.to_json().encode(),
        "payload": tarball({"system/etc/hostname": b"core\n"}),
        "record": b'{"publication": "x"}\n',
        "checksums": b"0" * 64 + b" *file\n",
        "keyring": keyrings.keyring_tarball(KeyringType.DEVICE_SIGNING, b"", now=NOW),
    }[kind]


def entries(workspace: Workspace) -> list[ledger.Entry]:
    return ledger.read(service.log_path(workspace))


@pytest.fixture
def ask(workspace: Workspace, tmp_path: Path) -> Callable[..., Path]:
    def sign(kind: str, purpose: Purpose, level: KeyringType = LEVEL, device: str = "") -> Path:
        data, signature = tmp_path / kind, tmp_path / f"{kind}.asc"
        data.write_bytes(document(kind))
        service = SigningService(workspace)
        service.sign(data, signature, level=level, purpose=purpose, channel="edge", device=device)
        return signature

    return sign


@pytest.mark.parametrize("purpose", list(Purpose))
def test_each_kind_is_signed_by_its_level_and_logged(
    workspace: Workspace, ask: Callable[..., Path], purpose: Purpose
) -> None:
    before = len(entries(workspace))
    signature = ask(purpose.value, purpose)
    key = Signer(workspace.gpg_home).fingerprint(LEVEL)
    assert openpgp.issuer(signature.read_bytes(), name="x") == key
    (entry,) = entries(workspace)[before:]
    expected = {"purpose": purpose.value, "key": key, "level": LEVEL.value, "channel": "edge"}
    assert {key: entry.fields[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("kind", "purpose", "level", "device"),
    [
        # B4: the right kind of key for the wrong role.
        ("channels", Purpose.CHANNELS, KeyringType.DEVICE_SIGNING, ""),
        ("channels", Purpose.CHANNELS, KeyringType.IMAGE_MASTER, ""),
        ("keyring", Purpose.KEYRING, KeyringType.IMAGE_MASTER, ""),
        ("keyring", Purpose.KEYRING, KeyringType.BLACKLIST, ""),
        ("payload", Purpose.PAYLOAD, KeyringType.ARCHIVE_MASTER, ""),
        ("checksums", Purpose.CHECKSUMS, KeyringType.DEVICE_SIGNING, ""),
        # What is signed must be what it is said to be: a keyring is no payload.
        ("keyring", Purpose.PAYLOAD, LEVEL, ""),
        ("index", Purpose.PAYLOAD, LEVEL, ""),
        ("index", Purpose.RECORD, LEVEL, ""),
        ("channels", Purpose.RECORD, LEVEL, ""),
        ("record", Purpose.CHANNELS, LEVEL, ""),
        ("payload", Purpose.INDEX, LEVEL, ""),
        ("payload", Purpose.CHECKSUMS, LEVEL, ""),
        ("payload", Purpose.KEYRING, LEVEL, ""),
        ("index", Purpose.INDEX, LEVEL, "arm64"),
    ],
)
def test_p6_what_the_policy_does_not_allow_is_refused_and_logged(
    workspace: Workspace,
    ask: Callable[..., Path],
    tmp_path: Path,
    kind: str,
    purpose: Purpose,
    level: KeyringType,
    device: str,
) -> None:
    if level is KeyringType.BLACKLIST:
        shutil.copytree(workspace.gpg_home / LEVEL, workspace.gpg_home / level)
    with pytest.raises(TrustError, match=kind):
        ask(kind, purpose, level, device)
    assert not (tmp_path / f"{kind}.asc").exists()
    assert kind in entries(workspace)[-1].fields["refused"]


def with_key(workspace: Workspace, **where: object) -> Workspace:
    """Return the workspace with its image-signing key elsewhere, and none here."""
    settings = workspace.settings.model_copy(
        update={"signing": {LEVEL.value: SigningSettings.model_validate(where)}}
    )
    shutil.rmtree(workspace.gpg_home / LEVEL / "private-keys-v1.d")
    return Workspace(root=workspace.root, settings=settings)


@pytest.fixture
def elsewhere(workspace: Workspace) -> Iterator[ForeignGpg]:
    """A GnuPG home with a new image-signing key, which is the workspace's next one."""
    with foreign_gpg() as gpg:
        gpg.make("elsewhere")
        store = Signer(workspace.gpg_home)
        store.adopt(LEVEL, gpg.gpg("--export", "elsewhere"), name="x")
        store.promote(LEVEL)
        yield gpg


def test_a_command_signs_and_its_answer_is_verified(
    workspace: Workspace, elsewhere: ForeignGpg, tmp_path: Path
) -> None:
    data, signature = tmp_path / "index.json", tmp_path / "index.json.asc"
    data.write_bytes(document("index"))
    home = str(elsewhere.home)
    gpg = ["gpg", "--homedir", home, "--batch", "--armor", "--local-user", "{key}", "--detach-sign"]

    def sign(*command: str) -> None:
        place = with_key(workspace, command=command)
        (workspace.gpg_home / LEVEL / "private-keys-v1.d").mkdir()
        service = SigningService(place)
        service.sign(data, signature, level=LEVEL, purpose=Purpose.INDEX)

    sign(*gpg, "--digest-algo", "SHA256")
    ring = Signer(workspace.gpg_home).public_keyring(LEVEL)
    trust.verify(data, signature, keyring=ring, blacklist=None, what="index", level=LEVEL)
    signature.unlink()
    for answer, says in (
        (["cat"], "not a detached OpenPGP signature"),
        (["true"], "no usable signature"),
        ([*gpg, "--digest-algo", "SHA1"], "weaker than SHA-256"),
        (["sh", "-c", f"echo other | {' '.join(gpg).replace(' {key}', ' elsewhere')}"], "changed"),
    ):
        with pytest.raises(TrustError, match=says) as caught:
            sign(*answer)
        assert "is what 'command' of [signing.image-signing] answered" in caught.value.hint
    for failing, error, says in (
        (("sh", "-c", "exit 3"), CommandError, "exit status 3"),
        (("no-such-signer",), CoreImageError, "no-such-signer"),
        (("/no/such/signer",), CommandError, "/no/such/signer"),
    ):
        with pytest.raises(error, match=says) as failed:
            sign(*failing)
        assert "'command' of [signing.image-signing]" in failed.value.hint
    assert not signature.exists()


def test_a_home_elsewhere_signs(
    workspace: Workspace, elsewhere: ForeignGpg, tmp_path: Path
) -> None:
    data, signature = tmp_path / "index.json", tmp_path / "index.json.asc"
    data.write_bytes(document("index"))
    service = SigningService(with_key(workspace, home=str(elsewhere.home)))
    assert service.place(LEVEL) == f"in '{elsewhere.home}'"
    service.sign(data, signature, level=LEVEL, purpose=Purpose.INDEX)
    shutil.rmtree(elsewhere.home / "private-keys-v1.d")
    run.run(["gpgconf", "--homedir", elsewhere.home, "--kill", "all"], check=False)
    with pytest.raises(NotFoundError, match=r"private key [0-9A-F]{16} is not here"):
        service.sign(data, signature, level=LEVEL, purpose=Purpose.INDEX)
    gone = SigningService(with_again(workspace, home=str(tmp_path / "unplugged")))
    assert gone.place(LEVEL) == ""
    with pytest.raises(NotFoundError, match="unplugged") as raised:
        gone.sign(data, signature, level=LEVEL, purpose=Purpose.INDEX)
    assert "medium" in raised.value.hint


def with_again(workspace: Workspace, **where: object) -> Workspace:
    (workspace.gpg_home / LEVEL / "private-keys-v1.d").mkdir()
    return with_key(workspace, **where)


def test_a_key_that_is_offline_or_lost_is_named_with_a_way_out(
    workspace: Workspace, ask: Callable[..., Path], tmp_path: Path
) -> None:
    data, signature = tmp_path / "index.json", tmp_path / "index.json.asc"
    data.write_bytes(document("index"))
    offline = SigningService(with_key(workspace, offline=True))
    with pytest.raises(NotFoundError, match="is offline") as raised:
        offline.sign(data, signature, level=LEVEL, purpose=Purpose.INDEX)
    assert "'home' or its 'command'" in raised.value.hint  # it signs too often for two steps
    (workspace.gpg_home / LEVEL / "private-keys-v1.d").mkdir()
    with pytest.raises(NotFoundError, match=r"private key [0-9A-F]{16} is not here") as raised:
        ask("index", Purpose.INDEX)
    assert "'coreimage keyring rotate image-signing'" in raised.value.hint
    master = KeyringType.IMAGE_MASTER
    shutil.rmtree(workspace.gpg_home / master / "private-keys-v1.d")
    with pytest.raises(NotFoundError, match="must be signed by 'image-master'") as raised:
        SigningService(workspace).require_key(master, what="the keyring")
    assert "--prepare DIR" in raised.value.hint


@pytest.mark.parametrize("place", ["workspace", "home"])
def test_a_locked_key_is_a_right_that_is_missing(
    workspace: Workspace, tmp_path: Path, place: str
) -> None:
    data, signature = tmp_path / "index.json", tmp_path / "index.json.asc"
    data.write_bytes(document("index"))
    store = Signer(workspace.gpg_home)
    with foreign_gpg() as gpg:
        gpg.gpg("--passphrase", "secret", "--quick-gen-key", "locked", "rsa2048", "sign", "never")
        store.adopt(LEVEL, gpg.gpg("--export", "locked"), name="x")
        store.promote(LEVEL)
        if place == "home":
            service = SigningService(with_key(workspace, home=str(gpg.home)))
        else:
            here = workspace.gpg_home / LEVEL / "private-keys-v1.d"
            shutil.copytree(gpg.home / here.name, here, dirs_exist_ok=True)
            service = SigningService(workspace)
        run.run(["gpgconf", "--homedir", gpg.home, "--kill", "all"], check=False)
        with pytest.raises(RightsError, match="locked with a passphrase") as raised:
            service.sign(data, signature, level=LEVEL, purpose=Purpose.INDEX)
        run.run(["gpgconf", "--homedir", gpg.home, "--kill", "all"], check=False)
    assert "unlock it" in raised.value.hint
    assert not signature.exists()


def test_p7_a_log_that_lost_its_end_is_noticed(workspace: Workspace) -> None:
    path = service.log_path(workspace)
    whole = entries(workspace)
    service.require_logged(workspace, whole)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(TrustError, match="is not in"):
        service.require_logged(workspace, entries(workspace))
