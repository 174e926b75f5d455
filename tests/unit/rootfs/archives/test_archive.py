from pathlib import Path

import pytest

from coreimage.config import ArchiveSettings
from coreimage.errors import DataError, NotFoundError
from coreimage.rootfs.archives import archive
from coreimage.rootfs.archives.archive import (
    Package,
    Resolution,
    find_archive,
    mirrors_in_sources,
    mirrors_in_targets,
)
from coreimage.rootfs.definitions.definition import Selection, select
from tests.support.definitions import BASE, write
from tests.support.resolutions import package, suite

HOST = """\
trixie	https://vendor.example/apt	$(ORIGIN)	stable
trixie	https://vendor.example/main	Vendor	main
trixie	cdrom://[Debian]	Debian	main
trixie	http://mirror.example/debian/	Debian	main
trixie	http://mirror.example/debian/	Debian	contrib
trixie-updates	http://updates.example/debian	Debian	main
trixie-security	http://security.example/debian-security	Debian	main
"""


@pytest.fixture
def selection(tmp_path: Path) -> Selection:
    write(tmp_path / "definitions/base", BASE)
    return select("base", None, "amd64", [tmp_path / "definitions"])


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    path = tmp_path / "k.gpg"
    path.touch()
    return path


def test_the_hosts_own_mirror_is_the_distributions() -> None:
    assert mirrors_in_targets(HOST, "debian", "trixie") == {
        "main": "http://mirror.example/debian",
        "security": "http://security.example/debian-security",
    }


def test_a_host_without_lists_knows_no_origins() -> None:
    text = "trixie\thttp://mirror.example/debian\t$(ORIGIN)\tmain\n"
    assert mirrors_in_targets(text, "debian", "trixie") == {
        "main": "http://mirror.example/debian",
        "security": "http://mirror.example/debian",
    }


@pytest.mark.parametrize("text", ["", "\n", "trixie\n", "trixie\tcdrom:x\tDebian\tmain\n", HOST])
def test_a_host_may_have_none(text: str) -> None:
    assert mirrors_in_targets(text, "ubuntu", "noble") == {}
    if text != HOST:
        assert mirrors_in_targets(text, "debian", "trixie") == {}


def test_mirrors_in_a_list_of_sources() -> None:
    text = (
        "# comment\n\ndeb-src http://src.example trixie main\n"
        "deb [signed-by=/k arch=amd64] http://mirror.example/debian trixie main contrib\n"
        "deb http://mirror.example/debian trixie-updates main\n"
        "deb http://security.example/debian-security trixie-security main\n"
    )
    assert mirrors_in_sources(text, "trixie") == {
        "main": "http://mirror.example/debian",
        "security": "http://security.example/debian-security",
    }
    assert mirrors_in_sources("deb http://mirror.example/ubuntu noble main\n", "noble") == {
        "main": "http://mirror.example/ubuntu",
        "security": "http://mirror.example/ubuntu",
    }
    assert mirrors_in_sources("deb\nnonsense\n", "noble") == {}


@pytest.mark.parametrize("security", [None, "http://security.example/debian-security/"])
def test_configured_mirrors_win(
    selection: Selection, keyring: Path, tmp_path: Path, security: str | None
) -> None:
    settings = ArchiveSettings(
        mirror="http://mirror.example/debian/", security_mirror=security, keyring=keyring
    )
    found = find_archive(selection, settings, tmp_path)
    main, other = "http://mirror.example/debian", "http://security.example/debian-security"
    assert found.suite == "trixie"
    assert found.sources == [
        f"deb [signed-by={keyring}] {main} trixie main",
        f"deb [signed-by={keyring}] {main} trixie-updates main",
        f"deb [signed-by={keyring}] {other if security else main} trixie-security main",
    ]


UBUNTU = """\
name = "ubuntu"
title = "Ubuntu"
distribution = "ubuntu"
default_release = "24.04"
releases."24.04" = { series = "noble", suites = ["noble"] }
architectures = { amd64 = { bootloader = "grub" }, arm64 = { bootloader = "grub" } }
"""


@pytest.mark.parametrize(
    ("arch", "settings", "expected"),
    [
        ("amd64", {"mirror": "http://m.example", "ports_mirror": "http://p.example"}, "m"),
        ("arm64", {"mirror": "http://m.example", "ports_mirror": "http://p.example"}, "p"),
        ("arm64", {"mirror": "http://m.example"}, "m"),
        ("arm64", {"ports_mirror": "http://p.example"}, "p"),
        ("amd64", {"ports_mirror": "http://p.example"}, "host"),
        ("arm64", {}, "default-arm64"),
    ],
)
def test_ubuntus_other_architectures_have_a_mirror_of_their_own(
    tmp_path: Path,
    keyring: Path,
    monkeypatch: pytest.MonkeyPatch,
    arch: str,
    settings: dict[str, str],
    expected: str,
) -> None:
    monkeypatch.setattr(
        archive,
        "host_mirrors",
        lambda _: dict.fromkeys(("main", "security"), "http://host.example"),
    )
    monkeypatch.setattr(
        archive,
        "default_mirrors",
        lambda _series, _scratch, arch: {"main": f"http://default-{arch}.example", "security": ""},
    )
    write(tmp_path / "definitions/ubuntu", UBUNTU)
    chosen = select("ubuntu", None, arch, [tmp_path / "definitions"])
    found = find_archive(chosen, ArchiveSettings(keyring=keyring, **settings), tmp_path)  # type: ignore[arg-type]
    assert found.sources == [f"deb [signed-by={keyring}] http://{expected}.example noble main"]


@pytest.mark.parametrize(
    "hosts", [{"main": "http://h.example", "security": "http://s.example"}, {}]
)
def test_the_hosts_mirrors_come_before_the_default(
    selection: Selection,
    keyring: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hosts: dict[str, str],
) -> None:
    default = {"main": "http://d.example", "security": "http://d.example"}
    monkeypatch.setattr(archive, "host_mirrors", lambda _: hosts)
    monkeypatch.setattr(archive, "default_mirrors", lambda *_: default)
    found = find_archive(selection, ArchiveSettings(keyring=keyring), tmp_path)
    expected = hosts or default
    assert f"] {expected['main']} trixie main" in found.sources[0]
    assert f"] {expected['security']} trixie-security main" in found.sources[2]


def test_a_missing_keyring_is_named(
    selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "some-archive-keyring.gpg"
    monkeypatch.setitem(archive._KEYRINGS, "debian", absent)
    with pytest.raises(NotFoundError, match=f"'{absent}' is missing") as caught:
        find_archive(selection, ArchiveSettings(), tmp_path)
    assert caught.value.hint.startswith("install the package some-archive-keyring, or set")
    with pytest.raises(NotFoundError) as caught:
        find_archive(selection, ArchiveSettings(keyring=absent), tmp_path)
    assert caught.value.hint == "correct 'keyring' of [archives.debian] in coreimage.toml"


def test_a_resolution_is_its_packages_in_any_order() -> None:
    packages = [package("a", size=3, sha256="0" * 64), package("b", size=4, sha256="1" * 64)]
    suites = [suite("trixie", day) for day in (23, 24)]
    one = Resolution(packages=packages, suites=suites[:1])
    other = Resolution(packages=packages[::-1], suites=suites)
    assert (one.published_at.day, other.published_at.day) == (23, 24)
    assert one.size == 7
    assert one.digest() == other.digest()
    assert one.digest() != Resolution(packages=packages[:1], suites=suites).digest()


def test_lines_of_apt() -> None:
    line = "'http://m.example/p/a_1%3a2_all.deb' a_1%3a2_all.deb 42 SHA256:" + "0" * 64
    assert archive._package(line) == Package(
        name="a",
        version="1:2",
        architecture="all",
        file="a_1:2_all.deb",
        uri="http://m.example/p/a_1%3a2_all.deb",
        size=42,
        sha256="0" * 64,
    )
    with pytest.raises(DataError, match="apt names no sha256"):
        archive._package(line.replace("SHA256", "MD5Sum"))


@pytest.mark.parametrize("text", ["", "Date: never\n", "Date:\n", "Origin: x\n"])
def test_a_release_needs_a_date(tmp_path: Path, text: str) -> None:
    path = tmp_path / "InRelease"
    path.write_text(text)
    with pytest.raises(DataError, match="'InRelease' of the archive has no date"):
        archive._release_date(path)


@pytest.mark.parametrize("zone", ["UTC", "-0000", "+0000", "GMT"])
def test_a_date_is_utc(tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    path = tmp_path / "InRelease"
    path.write_text(f"Origin: x\nDate: Mon, 23 Nov 2026 14:46:23 {zone}\n")
    assert archive._release_date(path).isoformat() == "2026-11-23T14:46:23+00:00"
