from pathlib import Path

import pytest

from coreimage.config import ArchiveSettings, ExtraArchiveSettings
from coreimage.errors import (
    ConfigError,
    CoreImageError,
    DataError,
    NotFoundError,
    TrustError,
    UsageError,
)
from coreimage.lib import openpgp
from coreimage.rootfs.archives.extra import (
    ExtraArchive,
    definition_archives,
    named_archives,
    refuse_conflicts,
)
from coreimage.rootfs.definitions.definition import select
from tests.support.definitions import BASE, write

# A public-key packet of version 4 (RFC 9580, 4.2 and 5.5.2); nothing here checks a signature.
BINARY = b"\x99\x00\x33\x04" + bytes(range(50))
ARMOURED = openpgp.armor(BINARY)
FINGERPRINT = openpgp.keys_of(BINARY, name="x").primary[0]
PINS = "# ours\nPackage: x\nPin: release o=Ours\nPin-Priority: -1\n"
INSIDE = "Signed-By:\n" + "".join(f" {line or '.'}\n" for line in ARMOURED.splitlines())


def of_definition(place: Path, **files: str) -> list[ExtraArchive]:
    names = {f"archives__{name}_DOT_chroot": text for name, text in files.items()}
    write(place / "base", BASE, **names)
    (place / "keyring.gpg").write_bytes(BINARY)
    return definition_archives(select("base", None, "amd64", [place]), place / "keyring.gpg")


def test_a_list_becomes_sources_with_the_key_inside(tmp_path: Path) -> None:
    text = """\
# ours
deb [arch=amd64,i386 lang=none] http://packages.example/a trixie main extra # one
deb-src http://packages.example/a trixie main
deb http://packages.example/flat ./
"""
    (archive,) = of_definition(tmp_path, a_DOT_list=text, a_DOT_key=ARMOURED, a_DOT_pref=PINS)
    assert archive.sources == (
        "Types: deb\nURIs: http://packages.example/a\nSuites: trixie\nComponents: main extra\n"
        f"Architectures: amd64 i386\nLanguages: none\n{INSIDE}\n"
        f"Types: deb\nURIs: http://packages.example/flat\nSuites: ./\n{INSIDE}"
    )
    assert archive.keys == (FINGERPRINT,)
    assert archive.apt_files() == {
        "sources.list.d/coreimage-a.sources": archive.sources.encode(),
        "preferences.d/coreimage-a.pref": PINS.encode(),
    }


def test_sources_in_deb822_style_and_the_distributions_key(tmp_path: Path) -> None:
    text = """\
# ours
types: deb deb-src
URIs: http://packages.example/a
Suites: trixie
 trixie-more
Components: main

Types: deb-src
URIs: http://packages.example/source
Suites: x/
"""
    (archive,) = of_definition(tmp_path, a_DOT_sources=text)
    assert archive.sources == (
        "Types: deb\nURIs: http://packages.example/a\nSuites: trixie trixie-more\n"
        f"Components: main\n{INSIDE}"
    )


def test_pins_need_no_archive(tmp_path: Path) -> None:
    (archive,) = of_definition(tmp_path, a_DOT_pref=PINS)
    assert archive.apt_files() == {"preferences.d/coreimage-a.pref": PINS.encode()}
    assert archive.keys == ()


@pytest.mark.parametrize(
    ("name", "text", "complaint", "hint"),
    [
        ("list", "deb [trusted=yes] http://x.example a b", "list.chroot:1: 'trusted'", "signed"),
        ("list", "\ndeb http://x.example a", "list.chroot:2: ", "deb URI SUITE"),
        ("list", "dep http://x.example a b", "list.chroot:1: ", "deb URI SUITE"),
        ("list", "deb [signed-by=/k] http://x.example a b", "build host", "'a.key.chroot'"),
        ("sources", "Types: deb\nURIs: x\nSuites: a\nTrusted: yes\n", "'Trusted'", "signed"),
        ("sources", "URIs: x\nSuites: a\nSigned-By: /k\n", "build host", "'a.key.chroot'"),
        ("sources", "URIs: x\nSuites: a\nCheck-Valid-Until: no\n", "'Check-Valid-Until'", ""),
        ("sources", "Types: deb\nURIs: x\n", "no 'Suites'", "Suites: "),
        ("key", ARMOURED, "is the key of no archive", "a.list.chroot"),
        ("pref", PINS.replace("-1", "abc"), "pref.chroot:4: 'abc' is no pin priority", "32767"),
    ],
)
def test_what_apt_would_trust_blindly_is_refused(
    tmp_path: Path, name: str, text: str, complaint: str, hint: str
) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        of_definition(tmp_path, **{f"a_DOT_{name}": text})
    assert hint in caught.value.hint


@pytest.mark.parametrize("key", ["", "no key", ARMOURED[:90], "\x99"])
def test_a_damaged_key_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(TrustError, match=r"a\.key\.chroot"):
        of_definition(tmp_path, a_DOT_list="deb http://x.example a b", a_DOT_key=key)


def test_one_suite_has_one_key() -> None:
    uri, line = "http://x.example/a", "deb [signed-by=/k.gpg] http://x.example/a trixie main"

    def extra(name: str, key: str, *, suites: str = "ours", more: str = "") -> ExtraArchive:
        text = f"URIs: {uri}/\nSuites: {suites}\n{more}Signed-By:\n {key}\n .\n"
        return ExtraArchive(name=name, sources=f"{text}\n{text}")

    one, other = extra("one", "A"), extra("other", "B")
    refuse_conflicts([line], [one, extra("same", "A"), extra("elsewhere", "B", suites="more")])
    refuse_conflicts([line], [one, extra("off", "B", more="Enabled: no\n")])
    refuse_conflicts([line, line], [ExtraArchive(name="pins", sources="")])
    with pytest.raises(DataError, match="'one' and extra archive 'other' are both suite 'ours'"):
        refuse_conflicts([line], [one, other])
    with pytest.raises(DataError, match="the distribution's archive and extra archive 'main'"):
        refuse_conflicts([line], [extra("main", "A", suites="more trixie")])


def named(
    place: Path,
    *names: str,
    settings: ArchiveSettings | None = None,
    configured: ExtraArchiveSettings | None = None,
) -> list[ExtraArchive]:
    write(place / "base", BASE)
    (place / "keys").mkdir(exist_ok=True)
    (place / "keys/owner-name.asc").write_text(ARMOURED)
    return named_archives(
        names,
        select("base", None, "amd64", [place]),
        settings=settings or ArchiveSettings(),
        configured={"extra": configured} if configured else {},
        root=place,
    )


PPA = ArchiveSettings(ppa_mirror="http://ppa.example/", ppa_keyrings=Path("keys"))
EXTRA = ExtraArchiveSettings(
    uri="http://packages.example/x", suites=["{series}-x"], keyring=Path("keys/owner-name.asc")
)


def test_a_ppa_is_found_on_its_mirror_and_pinned_by_its_origin(tmp_path: Path) -> None:
    plain, again = named(tmp_path, "owner/name", "owner/name:1001", "owner/name", settings=PPA)
    assert plain.name == "owner-name"
    assert plain.preferences == ""
    assert plain.sources == (
        "Types: deb\nURIs: http://ppa.example/owner/name/ubuntu\nSuites: trixie\n"
        f"Components: main\n{INSIDE}"
    )
    assert again.preferences == (
        "Package: *\nPin: release o=LP-PPA-owner-name\nPin-Priority: 1001\n"
    )


def test_an_archive_of_the_configuration(tmp_path: Path) -> None:
    (plain,) = named(tmp_path, "extra", configured=EXTRA)
    assert "URIs: http://packages.example/x\nSuites: trixie-x\nComponents: main\n" in plain.sources
    assert plain.preferences == ""
    pinned = EXTRA.model_copy(update={"pin": 700})
    (own,) = named(tmp_path, "extra", configured=pinned)
    assert own.preferences == 'Package: *\nPin: origin "packages.example"\nPin-Priority: 700\n'
    by_origin = pinned.model_copy(update={"origin": "Ours"})
    (other,) = named(tmp_path, "extra:-1", configured=by_origin)
    assert other.preferences == "Package: *\nPin: release o=Ours\nPin-Priority: -1\n"


@pytest.mark.parametrize(
    ("name", "kind", "complaint", "hint"),
    [
        ("owner/name", ConfigError, "no 'ppa_mirror'", "add ppa_mirror = "),
        ("absent", NotFoundError, "no extra archive 'absent'", "[extra_archives.absent]"),
        ("owner/name:high", UsageError, "no pin priority", "OWNER/NAME:PRIORITY"),
        ("owner/name:0", UsageError, "no pin priority", "not 0"),
        ("owner/name:32768", UsageError, "no pin priority", "to 32767"),
        ("Owner/name", UsageError, "does not name a PPA", "OWNER/NAME"),
        ("owner/name/x", UsageError, "does not name a PPA", "OWNER/NAME"),
        ("../name", UsageError, "does not name a PPA", "OWNER/NAME"),
    ],
)
def test_what_cannot_be_used_is_told(
    tmp_path: Path, name: str, kind: type[CoreImageError], complaint: str, hint: str
) -> None:
    with pytest.raises(kind, match=complaint) as caught:
        named(tmp_path, name)
    assert hint in caught.value.hint


def test_a_ppa_without_a_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no 'ppa_keyrings'") as caught:
        named(tmp_path, "a/b", settings=ArchiveSettings(ppa_mirror="http://ppa.example"))
    assert "a-b.asc" in caught.value.hint
    with pytest.raises(NotFoundError, match=r"keys/a-b\.asc' cannot be read"):
        named(tmp_path, "a/b", settings=PPA)
