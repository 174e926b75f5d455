import pytest

from coreimage.errors import DataError
from coreimage.rootfs.packages.installed import installed
from coreimage.rootfs.packages.manifest import manifest, read_manifest


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
    assert manifest(installed(status.encode())) == "dash\t1:2~rc+b1\nzlib1g:amd64\t1-2\n"


@pytest.mark.parametrize(
    "state",
    ["install ok unpacked", "install ok half-configured", "install reinstreq installed", ""],
)
def test_an_unfinished_package_is_refused(state: str) -> None:
    with pytest.raises(DataError, match=f"package 'dash' of the built tree is '{state}'"):
        list(installed(paragraph("dash", state).encode()))


def test_the_source_is_the_package_itself_unless_it_says_otherwise() -> None:
    status = "\n".join(
        [
            paragraph("dash"),
            paragraph("libc6", Source="glibc"),
            paragraph("apt+b1", Source="apt (3.0)", Maintainer="Deity <deity@example.org>"),
        ]
    )
    found = {each.name: each for each in installed(status.encode())}
    assert (found["dash"].source, found["dash"].source_version) == ("dash", "1-2")
    assert (found["libc6"].source, found["libc6"].source_version) == ("glibc", "1-2")
    assert (found["apt+b1"].source, found["apt+b1"].source_version) == ("apt", "3.0")
    assert found["apt+b1"].maintainer == "Deity <deity@example.org>"


def test_relations_are_read_by_name() -> None:
    fields = {
        "Pre-Depends": "libc6 (>= 2.41)",
        "Depends": "aa | bb:any, libc6",
        "Provides": "cc (= 1)",
    }
    (found,) = installed(paragraph("dash", **fields).encode())
    assert (found.depends, found.provides) == (("aa", "bb", "libc6"), ("cc",))


def test_a_manifest_is_read_as_it_was_written() -> None:
    text = manifest(
        installed(f"{paragraph('zlib1g', Multi_Arch='same')}\n{paragraph('a')}".encode())
    )
    assert read_manifest(text, name="m") == {"a": "1-2", "zlib1g:amd64": "1-2"}
    for line in ("dash 1", "dash\t", "\t1", ""):
        with pytest.raises(DataError, match=f"m:2: '{line}' is not a package"):
            read_manifest(f"a\t1\n{line}\nb\t1\n", name="m")


@pytest.mark.parametrize("status", [b"", b"\n\n", b"\xff\xfe\n", b"nonsense"])
def test_a_tree_without_packages_is_refused(status: bytes) -> None:
    with pytest.raises(DataError):
        manifest(installed(status))
