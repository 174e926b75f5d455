"""Version files: what a device learns about itself."""

import configparser
import io
import tarfile

import pytest

from coreimage.config import PublicServer
from coreimage.systemimage.imports.generators import version
from coreimage.systemimage.imports.generators.version import ImageIdentity

IDENTITY = ImageIdentity(
    channel="ubuntu-core/edge",
    device="generic_amd64",
    version=7,
    version_detail="rootfs=20150511,device=20150511,version=7",
)
SERVER = PublicServer(host="images.example", http_port=80, https_port="disabled")


def test_channel_ini_as_clients_read_it() -> None:
    text = version.channel_ini(IDENTITY, SERVER)
    assert text == (
        "[service]\nbase: images.example\nhttp_port: 80\nhttps_port: disabled\n"
        "channel: ubuntu-core/edge\ndevice: generic_amd64\nbuild_number: 7\n"
        "version_detail: rootfs=20150511,device=20150511,version=7\n"
    )
    parser = configparser.ConfigParser(delimiters=":")
    parser.read_string(text)
    assert parser["service"]["build_number"] == "7"


def test_a_channel_that_follows_another_says_so() -> None:
    identity = ImageIdentity(
        channel="stable", device="x", version=1, version_detail="version=1", target="vivid/stable"
    )
    assert "channel_target: vivid/stable\n" in version.channel_ini(identity, SERVER)


def test_the_members_are_those_of_the_contract() -> None:
    target = io.BytesIO()
    version.write(target, identity=IDENTITY, server=SERVER, mtime=1431302400)
    with tarfile.open(fileobj=io.BytesIO(target.getvalue())) as tar:
        found = {each.name: each for each in tar.getmembers()}
        build = tar.extractfile("system/etc/ubuntu-build")
        assert build is not None
        assert build.read() == b"7\n"
    folder = "system/etc/system-image/config.d"
    assert list(found) == [
        "system/etc/ubuntu-build",
        "system/etc/system-image/channel.ini",
        folder,
        f"{folder}/00_default.ini",
        f"{folder}/01_channel.ini",
    ]
    assert found[folder].isdir()
    assert found[folder].mode == 0o775
    assert found[f"{folder}/00_default.ini"].linkname == "../client.ini"
    assert found[f"{folder}/01_channel.ini"].linkname == "../channel.ini"
    assert {each.mtime for each in found.values()} == {1431302400}


@pytest.mark.parametrize("mtime", [0, 1431302400])
def test_the_same_input_gives_the_same_bytes(mtime: int) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    for target in (first, second):
        version.write(target, identity=IDENTITY, server=SERVER, mtime=mtime)
    assert first.getvalue() == second.getvalue()
