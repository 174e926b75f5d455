import os
from pathlib import Path

import pytest

from coreimage.errors import DataError, NotFoundError
from coreimage.model.build import Subproject
from coreimage.rootfs.definitions.definition import (
    Selection,
    arch_of_device,
    json_schema,
    select,
)
from coreimage.rootfs.reuse.recipe import locked_file
from tests.support.definitions import BASE, KIOSK, write

DEVICES = BASE + '[architectures.arm64]\nbootloader = "grub"\n[devices.box]\narch = "amd64"\n'


def of(place: Path, name: str = "base", arch: str = "amd64", **words: str) -> Selection:
    return select(name, words.get("release"), arch, [place], words.get("device"))


def touch(path: Path, text: str = "", *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def test_later_layers_win_and_those_of_the_extended_come_first(tmp_path: Path) -> None:
    base, kiosk = write(tmp_path / "base", DEVICES), write(tmp_path / "kiosk", KIOSK)
    layers = ["", "series/trixie", "arch/amd64", "device/box", "series/bookworm", "arch/arm64"]
    for number, layer in enumerate(layers):
        for name in range(number + 1):
            touch(base / layer / f"includes.chroot/{name}", layer)

    def which(**words: str) -> dict[str, str]:
        files = of(tmp_path, "kiosk", **words).files("includes.chroot")
        return {name: path.read_text() for name, path in files.items()}

    trixie, box = "series/trixie", "device/box"
    assert which(device="box") == {"0": box, "1": box, "2": box, "3": box}
    assert which() == {"0": "arch/amd64", "1": "arch/amd64", "2": "arch/amd64"}
    assert which(arch="arm64", release="12")["5"] == "arch/arm64"
    touch(kiosk / "includes.chroot/0", "kiosk")
    touch(kiosk / "series/trixie/includes.chroot/1", "kiosk trixie")
    assert which(device="box")["0"] == "kiosk"
    assert which(device="box")["1"] == "kiosk trixie"
    assert trixie in str(of(tmp_path, "kiosk").layers[1])


def test_a_device_adds_packages_and_has_its_boot_loader(tmp_path: Path) -> None:
    text = DEVICES + 'packages = ["gpsd"]\nwithout_packages = ["sed"]\nbootloader = "grub"\n'
    write(tmp_path / "base", text)
    packages = of(tmp_path, device="box").packages
    assert "gpsd" in packages
    assert "sed" not in packages
    assert of(tmp_path, device="box").bootloader == "grub"
    assert of(tmp_path).device == of(tmp_path, device="generic_amd64").device == "generic_amd64"
    assert of(tmp_path).digest() != of(tmp_path, device="box").digest()
    with pytest.raises(NotFoundError, match="no device 'box' of architecture 'arm64'") as caught:
        of(tmp_path, arch="arm64", device="box")
    assert caught.value.hint == "its devices are generic_arm64, box (amd64)"


def test_published_files_have_the_device_in_their_names(tmp_path: Path) -> None:
    write(tmp_path / "base", DEVICES)
    generic, box = of(tmp_path), of(tmp_path, device="box")
    assert (generic.own_device, generic.target) == ("", "amd64")
    assert (box.own_device, box.target) == ("box", "amd64.box")
    assert arch_of_device("base", "box", [tmp_path]) == "amd64"
    assert arch_of_device("base", "bix", [tmp_path]) is None


@pytest.mark.parametrize(
    ("name", "complaint", "hint"),
    [
        ("include.chroot/etc/x", "is no part of a definition", "did you mean 'includes.chroot'?"),
        ("hooks/10-x.chrot", "would be ignored for its name", ""),
        ("hooks/10-x.hook", "would be ignored for its name", ""),
        ("package-lists/x.list", "would be ignored for its name", ".list.chroot"),
        ("archives/x.list", "would be ignored for its name", ".list.chroot"),
        ("archives/a b.list.chroot", "apt would ignore", ""),
        ("preseed/x.conf", "would be ignored for its name", ".cfg"),
        ("ids/old-passwd", "would be ignored for its name", "passwd or group"),
        ("ids/shadow", "would be ignored for its name", ""),
        ("series/trixy/hooks/x.chroot", "series 'trixy'", "did you mean 'trixie'?"),
        ("series/trixie/hoks/x.chroot", "is no part of a definition", "did you mean 'hooks'?"),
        ("arch/arm64/ids/passwd", "arch 'arm64'", "did you mean 'amd64'?"),
        ("device/generic/ids/passwd", "device 'generic'", "did you mean 'generic_amd64'?"),
        ("50-x.chroot", "would be ignored where it is", "move it to hooks/"),
        ("series/trixie/passwd", "would be ignored where it is", "move it to ids/"),
        ("series/x.list.chroot", "would be ignored where it is", "package-lists/"),
        ("arch/amd64/definition.toml", "would be ignored where it is", ""),
        ("definition.toml.old", "would be ignored where it is", "remove it"),
        ("hooks/50-x.chroot/file", "is a folder, where a file is expected", ""),
        ("ids/group/file", "is a folder, where a file is expected", ""),
        ("device/box/series/trixie/x", "is no part of a definition", ""),
    ],
)
def test_what_would_be_ignored_is_refused(
    tmp_path: Path, name: str, complaint: str, hint: str
) -> None:
    write(tmp_path / "base", BASE + '[devices.box]\narch = "amd64"\n')
    touch(tmp_path / "base" / name, mode=0o755)
    with pytest.raises(DataError, match=complaint) as caught:
        of(tmp_path)
    assert hint in caught.value.hint


def test_what_is_for_people_may_lie_beside_the_folders(tmp_path: Path) -> None:
    base = write(tmp_path / "base", BASE)
    for name in ("README.md", ".gitignore", "LICENSE", "series/README", "series/trixie/.gitignore"):
        touch(base / name)
    assert of(tmp_path).digest()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    base = write(tmp_path / "base", BASE)
    touch(base / "includes.chroot/etc/x")
    os.mkfifo(base / "includes.chroot/etc/pipe")
    with pytest.raises(DataError, match="etc/pipe' is neither a file nor a folder nor a link"):
        of(tmp_path)
    (base / "includes.chroot/etc/pipe").unlink()
    touch(base / "hooks/README.chroot", mode=0o755)
    (base / "hooks/x.chroot").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"hooks/x\.chroot' leads to no file"):
        of(tmp_path)


def test_empty_folders_of_includes_count(tmp_path: Path) -> None:
    base = write(tmp_path / "base", BASE)
    touch(base / "includes.chroot/etc/x")
    before = of(tmp_path).digest()
    for part in ("includes.chroot", "includes.chroot_before_packages", "hooks"):
        (base / part / "var/empty").mkdir(parents=True)
    found = of(tmp_path)
    assert list(found.files("includes.chroot")) == ["etc/x", "var/empty"]
    assert list(found.files("includes.chroot_before_packages")) == ["var/empty"]
    assert found.files("hooks") == {}
    assert found.digest() != before
    assert locked_file(found.files("includes.chroot")["var/empty"]).kind == "folder"


def test_hidden_folders_are_nobodys_business(tmp_path: Path) -> None:
    touch(write(tmp_path / "base", BASE) / ".git/hooks/x")
    assert of(tmp_path).files("hooks") == {}


def test_an_extending_definition_need_not_have_all_series(tmp_path: Path) -> None:
    base = write(tmp_path / "base", BASE)
    touch(base / "series/bookworm/includes.chroot/x")
    one = '[releases.13]\nseries = "trixie"\nsuites = ["trixie"]\n'
    write(tmp_path / "kiosk", KIOSK + one)
    assert of(tmp_path, "kiosk").files("includes.chroot") == {}


def test_everything_counts_for_the_digest(tmp_path: Path) -> None:
    base = write(tmp_path / "base", DEVICES)
    seen = {of(tmp_path).digest()}
    for name in (
        "hooks/1.chroot_early",
        "hooks/1.binary",
        "package-lists/a.list.chroot",
        "archives/a.pref.chroot",
        "preseed/a.cfg",
        "ids/passwd",
        "series/trixie/ids/passwd",
        "arch/amd64/includes.chroot/x",
        "device/generic_amd64/includes.chroot/x",
    ):
        touch(base / name, f"# {name}" if "includes" in name else "", mode=0o755)
        seen.add(of(tmp_path).digest())
    assert len(seen) == 10
    touch(base / "series/bookworm/includes.chroot/x")
    assert of(tmp_path).digest() in seen


def test_the_schema_asks_for_the_whole_or_for_what_is_extended() -> None:
    schema = json_schema()
    assert schema["required"] == ["name"]
    whole = schema["anyOf"][1]["required"]
    assert {"releases", "architectures", "default_release", "distribution"} <= set(whole)
    assert schema["properties"]["subproject"]["default"] == "system-image"
    assert "description" in schema["properties"]["packages"]
    assert schema["additionalProperties"] is False


def test_the_subproject_is_the_builds_or_else_the_definitions(tmp_path: Path) -> None:
    base = write(tmp_path / "base", BASE)
    touch(base / "package-lists/k.list.chroot", "#if SUBPROJECT system-image\nlinux\n#endif\n")

    def chosen(subproject: Subproject | None = None) -> Selection:
        return select("base", None, "amd64", [tmp_path], subproject=subproject)

    assert chosen() == chosen(Subproject.SYSTEM_IMAGE)
    assert chosen().facts["COREIMAGE_SUBPROJECT"] == "system-image"
    assert "linux" in chosen().packages
    plain = chosen(Subproject.NONE)
    assert "linux" not in plain.packages
    assert not plain.has_device_tarball
    assert plain.digest() != chosen().digest()
    (base / "definition.toml").write_text('subproject = "none"\n' + BASE)
    assert chosen().subproject is Subproject.NONE
    assert chosen(Subproject.SYSTEM_IMAGE).has_device_tarball
