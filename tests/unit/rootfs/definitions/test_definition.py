from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coreimage.errors import DataError, NotFoundError
from coreimage.rootfs.definitions.definition import (
    Selection,
    architectures,
    definition_names,
    definition_places,
    load,
    select,
    shipped_definitions,
)
from tests.support.definitions import BASE, KIOSK, write


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write(tmp_path / "base", BASE, hooks__10_DOT_chroot="base", hooks__20_DOT_chroot="base")
    write(tmp_path / "kiosk", KIOSK, hooks__20_DOT_chroot="kiosk", hooks__05_DOT_binary="kiosk")
    return tmp_path


def of(place: Path, name: str = "kiosk", release: str | None = None) -> Selection:
    return select(name, release, "amd64", [place])


@pytest.mark.parametrize("name", definition_names([shipped_definitions()]))
def test_shipped_definitions_can_be_selected(name: str) -> None:
    places = definition_places(None)
    definition, folders = load(name, places)
    assert definition.name == name
    assert definition.default_release in definition.releases
    for release, each in definition.releases.items():
        for arch in architectures(definition, release):
            selection = select(name, release, arch, places)
            assert selection == select(name, each.series, arch, places)
            assert selection.packages
            assert selection.digest() != ""
            hooks = selection.hooks("chroot").values()
            assert all(path.stat().st_mode & 0o100 for path in hooks)
    assert folders[-1].name == name


def test_an_architecture_that_a_release_lacks_is_refused_with_the_reason() -> None:
    places = definition_places(None)
    definition, _ = load("debian-core", places)
    assert architectures(definition, "12") == ["amd64", "arm64", "armhf", "i386"]
    for release in ("13", "trixie", None):
        assert architectures(definition, release) == ["amd64", "arm64", "armhf"]
        with pytest.raises(NotFoundError, match="no kernel for i386 since release 13") as caught:
            select("debian-core", release, "i386", places)
        assert caught.value.hint == "its architectures are amd64, arm64, armhf"
    assert architectures(definition, "11") == ["amd64", "arm64", "armhf", "i386"]
    with pytest.raises(NotFoundError, match="Ubuntu has no kernel for i386"):
        select("ubuntu-core", None, "i386", places)


def test_a_definition_adds_to_what_it_extends(place: Path) -> None:
    definition, folders = load("kiosk", [place])
    assert [folder.name for folder in folders] == ["base", "kiosk"]
    assert list(definition.packages) == ["dash", "sed", "firefox"]
    assert list(definition.exclude_paths) == ["/usr/share/doc/*"]
    assert list(definition.include_paths) == ["/usr/share/doc/firefox"]
    assert (definition.title, definition.distribution) == ("Kiosk", "debian")
    assert set(definition.releases) == {"12", "13"}


def test_packages_are_those_of_definition_release_and_architecture(place: Path) -> None:
    assert of(place).packages == ["dash", "firefox", "linux-image-amd64", "new", "sed"]
    assert of(place, release="bookworm").packages == ["dash", "firefox", "linux-image-amd64"]


def test_files_take_the_place_of_those_of_what_is_extended(place: Path) -> None:
    hooks = of(place).hooks("chroot")
    assert {name: path.parent.parent.name for name, path in hooks.items()} == {
        "10.chroot": "base",
        "20.chroot": "kiosk",
    }
    assert list(of(place).files("hooks")) == ["05.binary", "10.chroot", "20.chroot"]


def test_links_are_files_and_folders_are_when_they_are_empty(place: Path) -> None:
    etc = place / "kiosk/includes.chroot/etc"
    etc.mkdir(parents=True)
    (etc / "empty").mkdir()
    (etc / "link").symlink_to("/nowhere")
    (etc / "tree").symlink_to("/usr")
    assert list(of(place).files("includes.chroot")) == ["etc/empty", "etc/link", "etc/tree"]


def test_the_operators_own_come_first(place: Path, tmp_path: Path) -> None:
    own = tmp_path / "workspace/definitions"
    write(own / "kiosk", KIOSK.replace('"Kiosk"', '"Own"'))
    assert load("kiosk", [own, place])[0].title == "Own"
    assert definition_places(tmp_path / "workspace")[0] == own
    assert definition_names([own, place]) == ["base", "kiosk"]


def test_the_digest_changes_with_everything_that_goes_in(place: Path) -> None:
    seen = {of(place).digest()}

    def changed() -> None:
        digest = of(place).digest()
        assert digest not in seen
        seen.add(digest)

    hook = place / "base/hooks/10.chroot"
    hook.write_text("changed")
    changed()
    hook.chmod(0o644)
    with pytest.raises(DataError, match=r"10\.chroot' cannot be run"):
        of(place)
    hook.chmod(0o755)
    program = place / "base/includes.chroot/program"
    program.parent.mkdir()
    program.touch(mode=0o644)
    changed()
    program.chmod(0o755)
    changed()
    hook.rename(hook.with_name("11.chroot"))
    changed()
    write(place / "base", BASE.replace('"dash"', '"bash"'))
    changed()
    link = place / "kiosk/includes.chroot/link"
    link.parent.mkdir()
    link.symlink_to("a")
    changed()
    link.unlink()
    link.symlink_to("b")
    changed()
    seen.add(of(place, release="12").digest())
    assert len(seen) == 9


def test_the_digest_does_not_depend_on_times_and_umask(place: Path) -> None:
    before = of(place).digest()
    (place / "base/hooks/10.chroot").chmod(0o700)
    (place / "base/hooks/10.chroot").touch()
    assert of(place).digest() == before


def test_what_is_missing_is_answered_with_what_there_is(place: Path) -> None:
    for name in ("kisok", "../kiosk", "", "/", "kiosk/"):
        with pytest.raises(NotFoundError, match="there is no definition") as caught:
            load(name, [place])
        assert caught.value.hint == "the definitions are base, kiosk"
    with pytest.raises(NotFoundError, match="'kiosk' has no release '14'") as caught:
        of(place, release="14")
    assert caught.value.hint == "its releases are 13 (trixie), 12 (bookworm)"
    with pytest.raises(NotFoundError, match="'kiosk' has no architecture 'arm64'") as caught:
        select("kiosk", None, "arm64", [place])
    assert caught.value.hint == "its architectures are amd64"


def test_a_missing_base_is_told_with_file_and_line(place: Path) -> None:
    folder = write(place / "child", 'title = "Child"\nextends = "bas"')
    with pytest.raises(DataError) as caught:
        load("child", [place])
    assert caught.value.message == (
        f"{folder}/definition.toml:2: 'extends' is 'bas', and there is no such definition"
    )
    assert caught.value.hint == "did you mean 'base'?"
    write(place / "child", 'extends = "zzz"')
    with pytest.raises(DataError) as caught:
        load("child", [place])
    assert caught.value.hint == "the definitions are base, child, kiosk"


def test_a_device_of_no_architecture_is_refused(place: Path) -> None:
    folder = write(place / "base", BASE + '[devices.box]\narch = "amd46"\n')
    with pytest.raises(DataError) as caught:
        load("base", [place])
    assert caught.value.message == (
        f"{folder}/definition.toml:23: 'devices.box.arch' is 'amd46', "
        "and there is no such architecture"
    )
    assert caught.value.hint == "did you mean 'amd64'?"
    write(place / "base", BASE + '[devices.box]\narch = "amd64"\n')
    narrow = KIOSK + '[architectures.arm64]\nbootloader = "grub"\n'
    write(place / "kiosk", narrow)
    assert list(load("kiosk", [place])[0].architectures) == ["arm64"]


def test_a_circle_is_refused(place: Path) -> None:
    write(place / "a", 'name = "a"\nextends = "b"')
    write(place / "b", 'name = "b"\nextends = "a"')
    with pytest.raises(DataError) as caught:
        load("a", [place])
    assert caught.value.message == (
        f"{place}/b/definition.toml:2: 'extends' is 'a', which extends 'b' in turn"
    )
    assert caught.value.hint == "the circle is a, b, a"
    write(place / "a", 'name = "a"\nextends = "a"')
    with pytest.raises(DataError, match=r"a/definition\.toml:2: 'extends' is 'a' itself"):
        load("a", [place])


def test_a_definition_has_the_name_of_its_folder(place: Path) -> None:
    write(place / "other", KIOSK)
    with pytest.raises(DataError, match="'name' is 'kiosk', in a folder named 'other'"):
        load("other", [place])
    write(place / "other", 'extends = "base"')
    with pytest.raises(DataError, match="'name' is 'base', in a folder named 'other'"):
        load("other", [place])


TOML_HINT = "write TOML: KEY = VALUE, text in quotes, lists in brackets"
PACKAGE_HINT = "names of packages have small letters, digits, +, . and -"


@pytest.mark.parametrize(
    ("old", "new", "complaint", "hint"),
    [
        (
            'packages = ["dash"',
            'pakages = ["dash"',
            "definition.toml:5: 'pakages' is not a key",
            "did you mean 'packages'?",
        ),
        (
            'suites = ["bookworm"]',
            'suites = ["bookworm"]\nsuits = []',
            "definition.toml:17: 'releases.12.suits' is not a key",
            "did you mean 'suites'?",
        ),
        (
            'suites = ["bookworm"]',
            'suites = ["bookworm"]\n[devices.fancy]\nbotloader = "grub"',
            "'devices.fancy.botloader' is not a key",
            "did you mean 'bootloader'?",
        ),
        (
            'series = "bookworm"',
            "",
            "definition.toml:14: 'releases.12.series': field required",
            "write 'series = …' there, or in what it extends",
        ),
        ('["dash", "sed"]', "7", "'packages' is 7: expected a list", "write it in brackets: [7]"),
        (
            '["dash", "sed"]',
            '"dash"',
            "definition.toml:5: 'packages' is 'dash': expected a list",
            'write it in brackets: ["dash"]',
        ),
        ('["dash", "sed"]', "[7]", "'packages.0' is 7", ""),
        ('"sed"]\nexclude', '"SED"]\nexclude', "'packages.1' is 'SED'", PACKAGE_HINT),
        ('"sed"]\nexclude', '"-o"]\nexclude', "'packages.1' is '-o'", PACKAGE_HINT),
        ('"sed"]\nexclude', '"sed-"]\nexclude', "'packages.1' is 'sed-'", PACKAGE_HINT),
        ('"sed"]\nexclude', '"a b"]\nexclude', "'packages.1' is 'a b'", PACKAGE_HINT),
        ('"sed"]\nexclude', '"sed\\n"]\nexclude', "'packages.1' is 'sed\\\\n'", PACKAGE_HINT),
        ('"sed"]\nexclude', '"./a.deb"]\nexclude', "'packages.1' is './a.deb'", PACKAGE_HINT),
        ('["bookworm"]', '["bookworm main"]', "'releases.12.suites.0'", ""),
        ('["bookworm"]', '["../x"]', "'releases.12.suites.0'", ""),
        ('"bookworm"\ns', '"../bookworm"\ns', "'releases.12.series' is '../bookworm'", ""),
        ('"grub"', '"lilo"', "'architectures.amd64.bootloader' is 'lilo'", ""),
        ('"debian"', '"fedora"', "'distribution' is 'fedora'", ""),
        ('name = "base"', 'name = "../base"', "'name' is '../base'", ""),
        ('name = "base"', 'name = "base"\nextends = 7', "'extends' is 7: input should be", ""),
        ('name = "base"', 'name = "base"\nproduct = "a/b"', "'product' is 'a/b'", ""),
        ('name = "base"', "name =", "definition.toml:1: invalid value (column 7)", TOML_HINT),
        (
            'default_release = "13"',
            'default_release = "31"',
            "definition.toml:4: 'default_release' is '31', and there is no such release",
            "the releases are 13, 12",
        ),
    ],
)
def test_a_mistake_is_named(place: Path, old: str, new: str, complaint: str, hint: str) -> None:
    assert old in BASE
    folder = write(place / "base", BASE.replace(old, new))
    with pytest.raises(DataError) as caught:
        load("base", [place])
    assert caught.value.message.startswith(f"{folder}/definition.toml:")
    assert complaint.replace("\\\\", "\\") in caught.value.message
    assert caught.value.hint == hint


TOML = st.recursive(
    st.integers(-9, 9) | st.booleans() | st.text("ab/.-\n", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "title", "extends", "packages", "releases", "architectures", "product"]
        ),
        TOML,
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_document_is_loaded_or_refused(place: Path, document: dict[str, Any]) -> None:
    lines = [f"{key} = {toml(value)}" for key, value in document.items()]
    write(place / "child", "\n".join(lines))
    with pytest.raises((DataError, NotFoundError)):
        load("child", [place])


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value) if isinstance(value, int) else '"' + str(value).replace("\n", "\\n") + '"'
