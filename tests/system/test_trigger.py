"""The line of the original page, word for word, against an archive that the test makes and signs.

The packages of the smallest system there is are those of the host's own distribution, published
once more as the suite vivid. The kernel is a stand-in: nothing is booted here.
"""

import gzip
import json
import os
import shutil
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreimage.lib import run
from tests.support.foreign_keys import foreign_gpg
from tests.support.local_archive import LocalArchive, download, served
from tests.support.product import SOURCES, Product

pytestmark = pytest.mark.system

LINE = (
    "SUBPROJECT=system-image EXTRA_PPAS=snappy-dev/image "
    "for-project ubuntu-core cron.daily-preinstalled --live"
)
FLASH_LINE = "sudo ubuntu-device-flash core 15.04 --channel edge --output x86.img"
KERNEL = {"boot/vmlinuz-3.19": "kernel", "boot/initrd.img-3.19": "initrd"}
SETTINGS = """\
[archives.ubuntu]
mirror = "{mirror}/archive"
keyring = "{archive_key}"
ppa_mirror = "{mirror}/ppa"
ppa_keyrings = "{ppa_keys}"

[compression]
gzip = 1
xz = 0
"""
DEFINITION = """\
name = "ubuntu-core"
title = "Ubuntu Core"
distribution = "ubuntu"
default_release = "15.04"
packages = ["snappy-tools"]
exclude_paths = ["/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*"]

[releases."15.04"]
series = "vivid"
suites = ["vivid"]

[architectures.amd64]
bootloader = "grub"
packages = ["linux-image-generic"]
"""


@contextmanager
def archives(ground: Path) -> Iterator[str]:
    """Yield a workspace's settings for an archive `vivid` and a PPA `snappy-dev/image`."""
    tree, keys = ground / "vivid", ground / "ppa-keys"
    keys.mkdir()
    with foreign_gpg() as main_gpg, foreign_gpg() as ppa_gpg, served(tree) as mirror:
        archive = LocalArchive(root=tree / "archive", gpg=main_gpg)
        for package in download(ground / "download", []):
            archive.take(package)
        archive.make(ground / "packages", "linux-image-generic", "3.19", files=KERNEL)
        archive.publish("vivid")
        ppa = LocalArchive(root=tree / "ppa/snappy-dev/image/ubuntu", gpg=ppa_gpg)
        ppa.make(ground / "packages", "snappy-tools", "1.2ppa3")
        ppa.publish("vivid")
        (keys / "snappy-dev-image.gpg").write_bytes(ppa.keyring.read_bytes())
        yield SETTINGS.format(mirror=mirror, archive_key=archive.keyring, ppa_keys=keys)


def install_commands(folder: Path, product: Product) -> None:
    """Write the commands of pyproject.toml as an installer does."""
    folder.mkdir()
    scripts = tomllib.loads((SOURCES / "pyproject.toml").read_text())["project"]["scripts"]
    for name, entry in scripts.items():
        module, _, function = entry.partition(":")
        path = folder / name
        path.write_text(
            f"#!{product.python}\nimport sys\nfrom {module} import {function}\n"
            f"sys.exit({function}())\n"
        )
        path.chmod(0o755)


@pytest.fixture(scope="module")
def published(ground: Path) -> tuple[Product, Path]:
    """The product and the publication that the page's line made."""
    product = Product(folder=ground / "cron")
    product.folder.mkdir()
    product.run("init", "workspace")
    root = product.folder / "workspace"
    definition = root / "definitions/ubuntu-core/definition.toml"
    definition.parent.mkdir(parents=True)
    definition.write_text(DEFINITION)
    install_commands(ground / "bin", product)
    with archives(ground) as settings:
        (root / "coreimage.toml").write_text(settings)
        done = run.run(
            ["/bin/sh", "-c", LINE],
            cwd=product.folder,
            env={"PATH": f"{ground / 'bin'}:/usr/bin:/bin", "CHANNEL": "edge"},
            check=False,
            timeout=600,
        )
    assert done.status == 0, done.stderr.decode(errors="replace")
    place, _image = done.stdout.decode().splitlines()
    return product, Path(place)


def test_the_line_publishes_what_the_page_describes(published: tuple[Product, Path]) -> None:
    _, place = published
    assert place.parts[-4:-1] == ("ubuntu-core", "vivid", "daily-preinstalled")
    assert (place.parent / "pending").readlink() == Path(place.name)
    files = {
        "vivid-preinstalled-core-amd64.cdx.json",
        "vivid-preinstalled-core-amd64.tar.gz",
        "vivid-preinstalled-core-amd64.device.tar.gz",
        "vivid-preinstalled-core-amd64.manifest",
    }
    assert {path.name for path in place.glob("vivid-*")} == files
    run.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=place)
    assert (place / "SHA256SUMS.gpg").is_file()


def test_the_package_of_the_ppa_is_inside(published: tuple[Product, Path]) -> None:
    _, place = published
    manifest = (place / "vivid-preinstalled-core-amd64.manifest").read_text()
    assert "snappy-tools\t1.2ppa3\n" in manifest
    with (
        gzip.open(place / "vivid-preinstalled-core-amd64.tar.gz") as file,
        tarfile.open(fileobj=file, mode="r|") as tar,
    ):
        names = {each.name.removeprefix("./") for each in tar}
    assert "usr/share/made-by-a-test/snappy-tools" in names
    assert not [name for name in names if name.startswith("boot/vmlinuz")]


def test_the_channel_has_the_image(published: tuple[Product, Path]) -> None:
    product, _ = published
    (image,) = product.json("image", "list", "ubuntu-core/15.04/edge", "-w", "workspace")
    assert image["version"] == 1
    assert image["type"] == "full"


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_the_line_that_flashes_needs_no_root(
    published: tuple[Product, Path], everybody: Path, user: str
) -> None:
    """The page's other line, word for word but for `sudo`, against a server on this machine."""
    product, _ = published
    folder = everybody / user
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    install_commands(folder / "bin", product)
    workspace = product.folder / "workspace"
    pinned = folder / "archive-master.tar.xz"
    shutil.copy(workspace / "trust/archive-master.tar.xz", pinned)
    prefix = []
    if user == "nobody" and os.geteuid() == 0:
        prefix = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    elif user == "root" and os.geteuid() != 0:
        prefix = ["unshare", "--map-root-user"]
    with served(workspace / "www/system-image") as server:
        done = run.run(
            [*prefix, "/bin/sh", "-c", FLASH_LINE.removeprefix("sudo ")],
            cwd=folder,
            env={
                "PATH": f"{folder / 'bin'}:/usr/bin:/bin:/usr/sbin:/sbin",
                "HOME": str(folder),
                "XDG_STATE_HOME": str(folder / "state"),
                "COREIMAGE_SERVER": server,
                "COREIMAGE_ARCHIVE_MASTER": str(pinned),
                "no_proxy": "127.0.0.1",
            },
            check=False,
            timeout=300,
        )
    assert done.status == 0, done.stderr.decode(errors="replace")
    lines = done.stdout.decode().splitlines()
    assert lines[:6] == [
        "New image complete",
        "Summary:",
        " Output: x86.img",
        " Architecture: amd64",
        " Channel: edge",
        " Version: 1",
    ]
    assert lines[6].endswith(" -m 768 x86.img")
    table = json.loads(run.run(["sfdisk", "--json", folder / "x86.img"]).stdout)
    names = [each["name"] for each in table["partitiontable"]["partitions"]]
    assert names == ["grub", "system-boot", "system-a", "system-b", "writable"]
    if user == "nobody" and (other := everybody / "root/x86.img").exists():
        assert run.run(["cmp", folder / "x86.img", other], check=False).status == 0


@pytest.fixture(scope="module")
def everybody() -> Iterator[Path]:
    """A folder that every user may look into."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_each_build_remembers_what_was_asked_for(published: tuple[Product, Path]) -> None:
    product, place = published
    (build,) = product.json("build", "list", "--workspace", "workspace")
    assert build["request"]["series"] == "vivid"
    assert build["request"]["version"] == place.name
    assert build["extra"]["extra_archives"] == ["snappy-dev/image"]
    assert build["fingerprint"]
