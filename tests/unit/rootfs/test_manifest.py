import pytest

from coreimage.errors import DataError
from coreimage.rootfs.manifest import manifest


def paragraph(name: str, state: str = "install ok installed", **fields: str) -> str:
    lines = {"Package": name, "Status": state, "Architecture": "amd64", "Version": "1-2", **fields}
    return "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in lines.items())


def test_packages_are_listed_by_name() -> None:
    status = "\n".join(
        [
            paragraph("zlib1g", Multi_Arch="same"),
            paragraph("dash", Version="1:2~rc+b1", Description="shell\n of ä\n ."),
            paragraph("gone", "deinstall ok config-files"),
            paragraph("never", "unknown ok not-installed"),
        ]
    )
    assert manifest(status.encode()) == "dash\t1:2~rc+b1\nzlib1g:amd64\t1-2\n"


@pytest.mark.parametrize(
    "state",
    ["install ok unpacked", "install ok half-configured", "install reinstreq installed", ""],
)
def test_an_unfinished_package_is_refused(state: str) -> None:
    with pytest.raises(DataError, match=f"package 'dash' of the built tree is '{state}'"):
        manifest(paragraph("dash", state).encode())


@pytest.mark.parametrize("status", [b"", b"\n\n", b"\xff\xfe\n", b"nonsense"])
def test_a_tree_without_packages_is_refused(status: bytes) -> None:
    with pytest.raises(DataError):
        manifest(status)
