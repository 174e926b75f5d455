from dataclasses import replace
from pathlib import Path

import pytest

from coreimage.errors import CoreImageError, DataError, UsageError
from coreimage.flasher.own.cloudinit import read_user_data
from coreimage.flasher.own.machine import (
    NOTHING_OWN,
    Own,
    check_hostname,
    check_support,
    read_credential,
)
from coreimage.flasher.own.network import NetworkFile
from coreimage.flasher.provision import NO_ACCESS, Access, check_user
from coreimage.flasher.tree.staging import Staging

ALL = Own(
    hostname="kiosk-7",
    networks=[NetworkFile(name="10-lab.network", text="[Match]\n")],
    credentials={"token": b"geheim"},
    user_data="#cloud-config\n",
)
ANNA = Access(user="anna")


@pytest.fixture
def system(tmp_path: Path) -> Staging:
    tree = Staging(tmp_path / "system")
    for name in ("units", "network"):
        link = {"units": "system", "network": "network"}[name]
        tree.put_symlink(f"usr/local/lib/systemd/{link}", f"/var/lib/coreimage/{name}")
    tree.put_file("usr/lib/coreimage/users", b"")
    tree.put_file("usr/bin/cloud-init", b"")
    tree.put_file("etc/system-image/writable-paths", b"# these\n/etc/credstore\n/var/lib/cloud\n")
    tree.put_file("etc/writable/hostname", b"debian-core\n")
    tree.put_file("etc/writable/timezone", b"Etc/UTC\n")
    tree.put_symlink("etc/writable/localtime", "/usr/share/zoneinfo/Etc/UTC")
    return tree


def test_everything_goes_where_the_image_looks(tmp_path: Path, system: Staging) -> None:
    check_support(ALL, ANNA, system)
    tree = Staging(tmp_path / "writable")
    ALL.install(tree, system)
    assert tree.file("system-data/etc/writable/hostname").read_text() == "kiosk-7\n"
    assert tree.file("system-data/etc/writable/timezone").read_text() == "Etc/UTC\n"
    assert "system-data/etc/writable/localtime" in tree.entries
    assert tree.has("system-data/var/lib/coreimage/network/10-lab.network")
    assert tree.entries["system-data/etc/credstore"].mode == 0o700
    assert tree.entries["system-data/etc/credstore/token"].mode == 0o600
    seed = "system-data/var/lib/cloud/seed/nocloud"
    assert "local-hostname: kiosk-7" in tree.file(f"{seed}/meta-data").read_text()


@pytest.mark.parametrize(
    ("own", "access", "says"),
    [
        (replace(NOTHING_OWN, hostname="x"), NO_ACCESS, "--hostname"),
        (replace(NOTHING_OWN, networks=ALL.networks), NO_ACCESS, "--network"),
        (replace(NOTHING_OWN, credentials=ALL.credentials), NO_ACCESS, "--credential"),
        (replace(NOTHING_OWN, user_data="#!/bin/sh"), NO_ACCESS, "cloud-init"),
        (NOTHING_OWN, ANNA, "--user"),
    ],
)
def test_an_image_that_would_not_look_there_is_refused(
    tmp_path: Path, own: Own, access: Access, says: str
) -> None:
    with pytest.raises(DataError, match=says) as raised:
        check_support(own, access, Staging(tmp_path / "bare"))
    assert raised.value.hint
    check_support(NOTHING_OWN, NO_ACCESS, Staging(tmp_path / "other"))


def test_secrets_do_not_show_in_what_identifies_a_disk() -> None:
    assert "geheim" not in repr(ALL.facts())
    assert ALL.facts() != replace(ALL, credentials={"token": b"other"}).facts()


def test_the_user_has_the_keys() -> None:
    home = "system-data/var/lib/coreimage"
    assert ANNA.files() == {f"{home}/users": "anna 1001\n"}


@pytest.mark.parametrize("name", ["root", "Anna", "a b", "", "x" * 33, "../x", "7of9"])
def test_users_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError):
        check_user(name)


@pytest.mark.parametrize("name", ["", "-x", "a_b", "x" * 65, "a\nb", "A"])
def test_host_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError):
        check_hostname(name)


def test_credentials_are_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"geheim")
    assert read_credential(f"token={path}") == ("token", b"geheim")
    for spec in (str(path), f"../x={path}", f"={path}"):
        with pytest.raises(CoreImageError):
            read_credential(spec)


@pytest.mark.parametrize("text", ["#cloud-config\nusers: [core]\n", "#!/bin/sh\n", "#cloud-config"])
def test_user_data_is_known_by_its_first_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "user-data"
    path.write_text(text)
    assert read_user_data(path) == text


@pytest.mark.parametrize("text", ["", "users: []", "#cloud-config\n- a\n", "#cloud-config\na: [\n"])
def test_what_cloud_init_would_not_take_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "user-data"
    path.write_text(text)
    with pytest.raises(DataError, match="user-data"):
        read_user_data(path)
