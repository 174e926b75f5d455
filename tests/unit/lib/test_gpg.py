import shutil
from pathlib import Path

import pytest

from coreimage.errors import DataError
from coreimage.lib.gpg import Signer
from coreimage.model.keyring import KeyringType

LEVEL = KeyringType.IMAGE_SIGNING


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("keys") / "gpg"
    Signer(home).generate(LEVEL)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "gpg"))


def test_the_public_half_alone_is_a_key_that_cannot_sign(home: Path) -> None:
    signer = Signer(home)
    assert signer.can_sign(LEVEL)
    (private,) = (home / LEVEL / "private-keys-v1.d").glob("*.key")
    # GnuPG names the file by the keygrip, which we work out ourselves.
    assert private.stem == signer.keys(LEVEL)[0].keygrip
    private.unlink()
    assert signer.has(LEVEL)
    assert not signer.can_sign(LEVEL)
    assert not signer.has(KeyringType.IMAGE_MASTER)
    assert not signer.can_sign(KeyringType.IMAGE_MASTER)


def test_a_key_comes_next_then_signs_then_retires(home: Path) -> None:
    signer = Signer(home)
    old = signer.fingerprint(LEVEL)
    new = signer.introduce(LEVEL)
    following = signer.next_key(LEVEL)
    assert following is not None
    assert following.fingerprint == new
    assert signer.fingerprint(LEVEL) == old
    assert signer.can_sign(LEVEL, new)
    signer.promote(LEVEL)
    signer.promote(LEVEL)
    assert signer.fingerprint(LEVEL) == new
    assert [key.fingerprint for key in signer.keys(LEVEL)] == [old, new]
    assert signer.next_key(LEVEL) is None
    signer.retire(LEVEL, old)
    signer.retire(LEVEL, old)
    assert [key.fingerprint for key in signer.keys(LEVEL)] == [new]
    assert [key.fingerprint for key in signer.retired(LEVEL)] == [old]
    signer.ban(signer.retired(LEVEL)[0])
    signer.ban(signer.retired(LEVEL)[0])
    assert [key.fingerprint for key in signer.keys(KeyringType.BLACKLIST)] == [old]


def test_a_key_from_elsewhere_is_taken_once(home: Path, tmp_path: Path) -> None:
    other = Signer(tmp_path / "other")
    new = other.generate(LEVEL)
    public = other.public_keyring(LEVEL).read_bytes()
    signer = Signer(home)
    assert signer.adopt(LEVEL, public, name="new.gpg") == new
    assert not signer.can_sign(LEVEL, new)
    with pytest.raises(DataError, match="is a key of 'image-signing' already"):
        signer.adopt(LEVEL, signer.public_keyring(LEVEL).read_bytes(), name="old.gpg")
    two = public + signer.public_keyring(LEVEL).read_bytes()
    with pytest.raises(DataError, match="not one RSA key"):
        signer.adopt(LEVEL, two, name="two.gpg")
