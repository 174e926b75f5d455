import base64

import pytest

from coreimage.errors import DataError
from coreimage.flasher.provision import NO_ACCESS, Access, parse_keys, read_keys

LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9nBWPrYPuTd7f8CdXbNLSCEmZ0iC8MpbQZrpM3iF1j me@home"
HOME = "system-data/var/lib/coreimage"


def test_a_key_has_the_fingerprint_that_ssh_shows() -> None:
    # Source of the digest: sha256 over the decoded blob, RFC 4253 and ssh-keygen -l.
    (key,) = parse_keys(LINE, source="me.pub")
    assert key.line == LINE
    assert key.comment == "me@home"
    assert key.fingerprint.startswith("SHA256:")
    assert len(base64.b64decode(key.fingerprint.removeprefix("SHA256:") + "=")) == 32


def test_a_file_may_hold_several_keys_and_remarks() -> None:
    keys = parse_keys(f"# mine\n\n{LINE}\n{LINE} at work\n", source="keys")
    assert [key.comment for key in keys] == ["me@home", "me@home at work"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no public key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "private key"),
        ("ssh-dss AAAAB3NzaC1kc3M=", "keys:1"),
        (f'command="rm -rf /" {LINE}', "keys:1"),
        (f"{LINE}\nssh-ed25519 not-base64!", "keys:2: the key is damaged"),
        ("ssh-ed25519 ", "damaged"),
        ("ssh-rsa " + LINE.split()[1], "no 'ssh-rsa' inside"),
        ("ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519").decode(), "damaged"),
        (LINE + "\x1b[2J", "control characters"),
    ],
)
def test_what_is_no_public_key_is_refused(text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        parse_keys(text, source="keys")


def test_by_default_nobody_gets_in() -> None:
    assert NO_ACCESS.nobody
    assert NO_ACCESS.files() == {}
    assert Access(ssh=True).nobody
    assert Access(ssh=True).files() == {f"{HOME}/ssh/enabled": ""}


def test_keys_and_developer_mode_become_files() -> None:
    keys = parse_keys(f"{LINE}\n{LINE} 2", source="keys")
    access = Access(ssh=True, keys=keys, developer_mode=True)
    assert not access.nobody
    assert access.files() == {
        f"{HOME}/ssh/enabled": "",
        f"{HOME}/ssh/authorized_keys/core": f"{LINE}\n{LINE} 2\n",
        f"{HOME}/developer-mode": "",
    }


def test_a_huge_file_is_not_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("keys") / "huge"
    path.write_text("#" * 70_000)
    with pytest.raises(DataError, match="too large"):
        read_keys(path)
