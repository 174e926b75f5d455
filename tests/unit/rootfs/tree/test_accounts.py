import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from coreimage.errors import DataError
from coreimage.rootfs.tree.accounts import accounts_in, accounts_of

PASSWD, GROUP = b"root:x:0:0:::\n", b"root:x:0:\n"


def tarball(path: Path, *names: str) -> Path:
    """Write a tarball that is compressed in parts, as those of builds are."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name in names:
            data = PASSWD if name.endswith("passwd") else GROUP
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = plain.getvalue()
    path.write_bytes(
        b"".join(gzip.compress(data[at : at + 1024]) for at in range(0, len(data), 1024))
    )
    return path


@pytest.mark.parametrize("prefix", ["", "./"])
def test_accounts_of_a_tarball(tmp_path: Path, prefix: str) -> None:
    path = tarball(tmp_path / "x.tar.gz", f"{prefix}etc/group", f"{prefix}etc/passwd", "etc/z")
    assert accounts_of(path) == (PASSWD, GROUP)


def test_accounts_of_a_tree_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_bytes(PASSWD)
    (tmp_path / "etc/group").write_bytes(GROUP)
    assert accounts_of(tmp_path) == (PASSWD, GROUP)
    (tmp_path / "etc/passwd").unlink()
    (tmp_path / "etc/passwd").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="has no etc/passwd"):
        accounts_of(tmp_path)


def test_what_has_no_accounts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no etc/group"):
        accounts_of(tarball(tmp_path / "x.tar.gz", "etc/passwd"))
    cut = tarball(tmp_path / "y.tar.gz", "etc/z", "etc/group")
    os.truncate(cut, 60)
    (tmp_path / "text").write_text("text")
    for path in (cut, tmp_path / "text"):
        with pytest.raises(DataError, match="cannot be read"):
            accounts_of(path)


def test_accounts_in_a_tree_as_far_as_there_are_any(tmp_path: Path) -> None:
    assert accounts_in(tmp_path) == (b"", b"")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_bytes(PASSWD)
    (tmp_path / "etc/group").symlink_to("/etc/group")
    assert accounts_in(tmp_path) == (PASSWD, b"")
