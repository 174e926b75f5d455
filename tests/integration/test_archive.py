"""What the real apt says about archives that are good, forged, stale or broken."""

import socket
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from coreimage.config import ArchiveSettings
from coreimage.errors import ConfigError, DataError, NoSpaceError, TrustError, UnavailableError
from coreimage.lib import run
from coreimage.rootfs.archives import archive
from coreimage.rootfs.archives.archive import Resolution, find_archive, locked_archive, resolve
from coreimage.rootfs.archives.extra import named_archives
from coreimage.rootfs.definitions.definition import select
from tests.support.archives import PUBLISHED, Key, PackageArchive, signing_key
from tests.support.definitions import write

DEFINITION = """\
name = "tiny"
title = "Tiny"
distribution = "debian"
default_release = "13"
packages = ["app"]
releases.13 = { series = "trixie", suites = ["trixie"] }
releases.14 = { series = "trixie", suites = ["trixie", "trixie-updates"] }
releases.15 = { series = "trixie", suites = ["trixie"], proposed_suites = ["trixie-proposed"] }
architectures.amd64 = { bootloader = "grub", packages = ["kernel"] }
"""
PACKAGES = {
    "apt": {},
    "base-files": {"Essential": "yes"},
    "app": {"Depends": "library", "Recommends": "games"},
    "library": {},
    "games": {},
    "kernel": {},
    "unrelated": {},
}


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    # The socket of the agent needs a short path, which pytest's own folders are not.
    with tempfile.TemporaryDirectory() as folder, signing_key(Path(folder, "key")) as made:
        yield made


@pytest.fixture
def made(tmp_path: Path, key: Key) -> PackageArchive:
    return PackageArchive(tmp_path / "archive", key)


def ask(
    made: PackageArchive,
    tmp_path: Path,
    *,
    release: str = "13",
    keyring: Path | None = None,
    text: str = DEFINITION,
) -> Resolution:
    write(tmp_path / "definitions/tiny", text)
    selection = select("tiny", release, "amd64", [tmp_path / "definitions"])
    settings = ArchiveSettings(mirror=made.uri, keyring=keyring or made.key.keyring)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return resolve(selection, find_archive(selection, settings, scratch), scratch)


def test_what_would_be_installed(made: PackageArchive, tmp_path: Path) -> None:
    made.publish(PACKAGES)
    found = ask(made, tmp_path)
    assert {each.file: (each.size, each.sha256) for each in found.packages} == {
        f"{name}_1%3a2_all.deb": (len(name), sha256(name.encode()).hexdigest())
        for name in ("apt", "base-files", "app", "library", "kernel")
    }
    assert found.published_at == PUBLISHED


def kept(
    made: PackageArchive, tmp_path: Path, name: str, *, keyring: Path | None = None
) -> Resolution:
    """Ask in a scratch folder of its own, with lists that are kept between the asking."""
    write(tmp_path / "definitions/tiny", DEFINITION)
    selection = select("tiny", "13", "amd64", [tmp_path / "definitions"])
    settings = ArchiveSettings(mirror=made.uri, keyring=keyring or made.key.keyring)
    scratch = tmp_path / name
    scratch.mkdir()
    found = find_archive(selection, settings, scratch)
    return resolve(selection, found, scratch, keep=tmp_path / "kept")


def test_lists_that_are_kept_are_checked_and_follow_the_archive(
    made: PackageArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.publish(PACKAGES)
    first = kept(made, tmp_path, "first")
    with monkeypatch.context() as patched:
        patched.setattr(archive, "_installed", lambda *_: pytest.fail("it is known"))
        assert kept(made, tmp_path, "again") == first
    made.publish({**PACKAGES, "library": {"Depends": "unrelated"}})
    second = kept(made, tmp_path, "changed")
    assert {each.name for each in second.packages} - {each.name for each in first.packages} == {
        "unrelated"
    }


def test_lists_that_are_kept_are_not_believed_for_that(
    made: PackageArchive, tmp_path: Path
) -> None:
    made.publish(PACKAGES)
    kept(made, tmp_path, "first")
    good = made.key.keyring.read_bytes()
    # The same path, so that the kept lists are the same ones.
    made.key.keyring.write_bytes(
        Path("/usr/share/keyrings/debian-archive-keyring.gpg").read_bytes()
    )
    try:
        with pytest.raises(TrustError):
            kept(made, tmp_path, "other-key")
    finally:
        made.key.keyring.write_bytes(good)


def test_the_newest_suite_gives_the_time(made: PackageArchive, tmp_path: Path) -> None:
    made.publish(PACKAGES)
    later = PUBLISHED + timedelta(days=3)
    made.publish({}, suite="trixie-updates", published=later)
    assert ask(made, tmp_path, release="14").published_at == later


@pytest.mark.parametrize(("pin", "version"), [("", "1:3"), (":-1", "1:2")])
def test_what_is_proposed_is_taken_by_who_asks_for_it(
    made: PackageArchive, tmp_path: Path, pin: str, version: str
) -> None:
    made.publish(PACKAGES)
    made.publish({"library": {"Version": "1:3"}}, suite="trixie-proposed", automatic=False)
    write(tmp_path / "definitions/tiny", DEFINITION)
    selection = select("tiny", "15", "amd64", [tmp_path / "definitions"])
    settings = ArchiveSettings(mirror=made.uri, keyring=made.key.keyring)
    extras = named_archives(
        [f"proposed{pin}"], selection, settings=settings, configured={}, root=tmp_path
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    known = find_archive(selection, settings, scratch, extras)
    assert not [line for line in known.sources if "trixie-proposed" in line]
    found = resolve(selection, known, scratch)
    assert {each.version for each in found.packages if each.name == "library"} == {version}

    again = locked_archive(selection, settings, known.sources, extras)
    assert again == known
    with pytest.raises(ConfigError, match="release 13 of 'tiny' has no proposed updates"):
        named_archives(
            ["proposed"],
            select("tiny", "13", "amd64", [tmp_path / "definitions"]),
            settings=settings,
            configured={},
            root=tmp_path,
        )


def test_a_package_that_does_not_exist(made: PackageArchive, tmp_path: Path) -> None:
    made.publish(PACKAGES)
    text = DEFINITION.replace('"app"', '"app", "abbsent"')
    with pytest.raises(DataError, match="packages of 'tiny' cannot be installed") as caught:
        ask(made, tmp_path, text=text)
    assert "Unable to locate package abbsent" in caught.value.message
    assert caught.value.hint == (
        "correct the packages of the definition; 'coreimage rootfs show tiny' says which file "
        "names each"
    )


def test_a_package_that_cannot_be_installed(made: PackageArchive, tmp_path: Path) -> None:
    made.publish({**PACKAGES, "app": {"Depends": "nowhere"}})
    with pytest.raises(DataError, match="packages of 'tiny' cannot be installed"):
        ask(made, tmp_path)


@pytest.mark.parametrize("where", ["head", "index"])
def test_a_forged_archive_is_not_trusted(made: PackageArchive, tmp_path: Path, where: str) -> None:
    release = made.publish(PACKAGES)
    if where == "head":
        release.write_text(release.read_text().replace("Origin: Debian", "Origin: debian"))
    else:
        index = release.parent / "main/binary-amd64/Packages.gz"
        index.write_bytes(index.read_bytes()[:-1] + b"\x01")
    with pytest.raises(TrustError, match="archive of 'tiny' is not trusted: ") as caught:
        ask(made, tmp_path)
    assert "'keyring'" in caught.value.hint


def test_another_key_is_not_trusted(made: PackageArchive, tmp_path: Path) -> None:
    made.publish(PACKAGES)
    with (
        tempfile.TemporaryDirectory() as folder,
        signing_key(Path(folder, "other")) as other,
        pytest.raises(TrustError, match="not trusted: "),
    ):
        ask(made, tmp_path, keyring=other.keyring)


def test_an_unsigned_archive_is_not_trusted(made: PackageArchive, tmp_path: Path) -> None:
    _remove_signature(made.publish(PACKAGES))
    with pytest.raises(TrustError, match="is not signed"):
        ask(made, tmp_path)


def _remove_signature(release: Path) -> None:
    lines = release.read_text().splitlines()
    signature = lines.index("-----BEGIN PGP SIGNATURE-----")
    (release.parent / "Release").write_text("\n".join(lines[3:signature]) + "\n")
    release.unlink()


def test_a_stale_archive_is_not_trusted(made: PackageArchive, tmp_path: Path) -> None:
    made.publish(PACKAGES, published=datetime(2015, 4, 2, tzinfo=UTC), lifetime=timedelta(days=7))
    with pytest.raises(TrustError, match="is expired"):
        ask(made, tmp_path)


def test_a_suite_that_is_not_there(made: PackageArchive, tmp_path: Path) -> None:
    made.publish(PACKAGES)
    with pytest.raises(DataError, match=f"at '{made.uri}' has no suite 'trixie-updates'") as caught:
        ask(made, tmp_path, release="14")
    assert "'archives'" in caught.value.hint


def test_a_suite_that_is_no_longer_there(made: PackageArchive, tmp_path: Path) -> None:
    release = made.publish(PACKAGES)
    kept(made, tmp_path, "first")
    release.unlink()
    with pytest.raises(DataError, match="has no suite 'trixie'"):
        kept(made, tmp_path, "second")


def test_an_archive_that_loses_its_signature_is_not_trusted(
    made: PackageArchive, tmp_path: Path
) -> None:
    release = made.publish(PACKAGES)
    kept(made, tmp_path, "first")
    _remove_signature(release)
    with pytest.raises(TrustError, match="is no longer signed"):
        kept(made, tmp_path, "second")


def test_a_component_that_is_not_there(made: PackageArchive, tmp_path: Path) -> None:
    made.publish(PACKAGES)
    wrong = 'suites = ["trixie"], components = ["mian"]'
    text = DEFINITION.replace('suites = ["trixie"]', wrong, 1)
    with pytest.raises(DataError, match="has no component 'mian' in suite 'trixie'") as caught:
        ask(made, tmp_path, text=text)
    assert "'components'" in caught.value.hint


@pytest.mark.parametrize("code", [404, 503])
def test_a_server_in_trouble_is_no_mistake_of_the_definition(
    made: PackageArchive, tmp_path: Path, code: int
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(code)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        made.uri = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(DataError if code == 404 else UnavailableError, match="'tiny'"):
            ask(made, tmp_path)
        server.shutdown()


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(
    made: PackageArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_PATIENCE", 1.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        made.uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=r"did not arrive within 0\.025 minutes"):
            ask(made, tmp_path)


def test_a_disk_that_fills_up_is_named(
    made: PackageArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.publish(PACKAGES)
    monkeypatch.setattr(archive, "_ROOM_FOR_INDICES", 1 << 80)
    with pytest.raises(NoSpaceError, match="no space for the indices of package archives"):
        ask(made, tmp_path)
    monkeypatch.setattr(archive, "_ROOM_FOR_INDICES", 0)
    monkeypatch.setattr(archive, "_PATIENCE", 0.0)
    monkeypatch.setattr(archive, "_FULL", 1 << 80)
    (tmp_path / "scratch").rename(tmp_path / "earlier")
    with pytest.raises(NoSpaceError, match="no space for the indices of the package archive"):
        ask(made, tmp_path)


def test_a_mirror_that_is_not_there(made: PackageArchive, tmp_path: Path) -> None:
    made.uri = "http://127.0.0.1:9/debian"
    with pytest.raises(UnavailableError, match="cannot be used: "):
        ask(made, tmp_path)


def test_the_hosts_own_settings_of_apt_do_not_matter(
    made: PackageArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.publish(PACKAGES)
    config = tmp_path / "host.conf"
    config.write_text('APT::Install-Recommends "true";\n')
    monkeypatch.setenv("APT_CONFIG", str(config))
    assert "games_1%3a2_all.deb" not in {each.name for each in ask(made, tmp_path).packages}


def test_the_hosts_mirrors_are_asked_of_apt() -> None:
    release = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    distribution = release["ID"].strip('"')
    mirrors = archive.host_mirrors(distribution)
    assert set(mirrors) in ({"main", "security"}, set())
    assert archive.host_mirrors("other") == {}


def test_mmdebstraps_default_mirror_is_asked_of_it(tmp_path: Path) -> None:
    if run.find_program("mmdebstrap") is None:
        pytest.fail("mmdebstrap is not installed")
    mirrors = archive.default_mirrors("trixie", tmp_path, "amd64")
    assert set(mirrors) == {"main", "security"}
    assert mirrors["main"].startswith("http")


def test_mmdebstraps_default_mirror_depends_on_the_architecture(tmp_path: Path) -> None:
    found = {}
    for arch in ("amd64", "i386", "arm64", "armhf"):
        (tmp_path / arch).mkdir()
        found[arch] = archive.default_mirrors("noble", tmp_path / arch, arch)["main"]
    assert found["amd64"] == found["i386"] != found["arm64"] == found["armhf"]
    assert found["arm64"].endswith("-ports")
