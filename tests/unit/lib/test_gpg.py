from pathlib import Path

from coreimage.lib.gpg import Signer
from coreimage.model.keyring import KeyringType


def test_the_public_half_alone_is_a_key_that_cannot_sign(tmp_path: Path) -> None:
    level = tmp_path / KeyringType.IMAGE_MASTER
    (level / "private-keys-v1.d").mkdir(parents=True)
    signer = Signer(tmp_path)
    assert not signer.has(KeyringType.IMAGE_MASTER)
    (level / "public.gpg").touch()
    assert signer.has(KeyringType.IMAGE_MASTER)
    assert not signer.can_sign(KeyringType.IMAGE_MASTER)
    (level / "private-keys-v1.d/0A1B.key").touch()
    assert signer.can_sign(KeyringType.IMAGE_MASTER)
