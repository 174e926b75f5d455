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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

[devices.box]
arch = "amd64"
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


@dataclass(frozen=True, kw_only=True)
class Published:
    """The product, and the publications that the page's line made with and without SUBPROJECT."""

    product: Product
    system_image: Path
    plain: Path


@pytest.fixture(scope="module")
def both(ground: Path) -> Published:
    product = Product(folder=ground / "cron")
    product.folder.mkdir()
    product.run("init", "workspace")
    root = product.folder / "workspace"
    definition = root / "definitions/ubuntu-core/definition.toml"
    definition.parent.mkdir(parents=True)
    definition.write_text(DEFINITION)
    install_commands(ground / "bin", product)
    path = {"PATH": f"{ground / 'bin'}:/usr/bin:/bin"}

    def line(text: str, **more: str) -> list[str]:
        done = run.run(
            ["/bin/sh", "-c", text], cwd=product.folder, env=path | more, check=False, timeout=600
        )
        assert done.status == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode().splitlines()

    with archives(ground) as settings:
        (root / "coreimage.toml").write_text(settings)
        system_image, _image = line(LINE, CHANNEL="edge")
        # A device has what its architecture has, and files of its own.
        own = definition.parent / "device/box/includes.chroot/etc/box"
        own.parent.mkdir(parents=True)
        own.touch()
        (plain,) = line(LINE.removeprefix("SUBPROJECT=system-image "), ARCHES="amd64 amd64+box")
    return Published(product=product, system_image=Path(system_image), plain=Path(plain))


@pytest.fixture(scope="module")
def published(both: Published) -> tuple[Product, Path]:
    """The product and the publication that the page's line made."""
    return both.product, both.system_image


def test_the_line_publishes_what_the_page_describes(published: tuple[Product, Path]) -> None:
    _, place = published
    assert place.parts[-4:-1] == ("ubuntu-core", "vivid", "daily-preinstalled")
    files = {
        "vivid-preinstalled-core-amd64.cdx.json",
        "vivid-preinstalled-core-amd64.tar.gz",
        "vivid-preinstalled-core-amd64.device.tar.gz",
        "vivid-preinstalled-core-amd64.manifest",
    }
    assert {path.name for path in place.glob("vivid-*")} == files
    run.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=place)
    assert (place / "SHA256SUMS.gpg").is_file()


def root_of(place: Path, target: str = "amd64") -> set[str]:
    """Return the names of all that is in a root file system of a publication."""
    with (
        gzip.open(place / f"vivid-preinstalled-core-{target}.tar.gz") as file,
        tarfile.open(fileobj=file, mode="r|") as tar,
    ):
        return {each.name.removeprefix("./") for each in tar}


def test_the_package_of_the_ppa_is_inside(published: tuple[Product, Path]) -> None:
    _, place = published
    manifest = (place / "vivid-preinstalled-core-amd64.manifest").read_text()
    assert "snappy-tools\t1.2ppa3\n" in manifest
    names = root_of(place)
    assert "usr/share/made-by-a-test/snappy-tools" in names
    assert not [name for name in names if name.startswith("boot/")]


def test_without_subproject_the_kernel_stays(both: Published) -> None:
    place, other = both.plain, both.system_image
    assert (place.parent / "pending").readlink() == Path(place.name)
    assert {path.name for path in other.glob("vivid-*")} - {
        path.name for path in place.glob("vivid-*")
    } == {"vivid-preinstalled-core-amd64.device.tar.gz"}
    assert root_of(place) - root_of(other) >= set(KERNEL)


def test_a_device_is_published_beside_its_architecture(both: Published) -> None:
    prefix = "vivid-preinstalled-core-amd64"
    assert {path.name for path in both.plain.glob(f"{prefix}.box.*")} == {
        f"{prefix}.box.{ending}" for ending in ("cdx.json", "manifest", "tar.gz")
    }
    assert root_of(both.plain, "amd64.box") - root_of(both.plain) == {"etc/box"}


def test_the_channel_has_the_image(published: tuple[Product, Path]) -> None:
    product, _ = published
    (image,) = product.json("image", "list", "ubuntu-core/15.04/edge", "-w", "workspace")
    assert image["version"] == 1
    assert image["type"] == "full"


SUDOERS = """\
Defaults secure_path = "{folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Defaults env_keep += "COREIMAGE_SERVER COREIMAGE_ARCHIVE_MASTER HOME XDG_STATE_HOME no_proxy"
nobody ALL = (root) NOPASSWD: ALL
"""
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


def as_root(folder: Path) -> list[str]:
    del folder
    return [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]


def as_nobody(folder: Path) -> list[str]:
    del folder
    return NOBODY if os.geteuid() == 0 else []


def as_nobody_with_sudo(folder: Path) -> list[str]:
    """Let nobody use sudo in a mount namespace of its own, so that nothing of /etc changes."""
    if os.geteuid() != 0:
        pytest.skip("only root can let somebody use sudo")
    rules = folder / "sudoers"
    rules.write_text(SUDOERS.format(folder=folder))
    rules.chmod(0o440)
    enter = 'mount --bind "$0" /etc/sudoers && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", enter, str(rules), *NOBODY]


@pytest.mark.parametrize(
    ("line", "prefix"),
    [
        (FLASH_LINE.removeprefix("sudo "), as_root),
        (FLASH_LINE.removeprefix("sudo "), as_nobody),
        (FLASH_LINE, as_nobody_with_sudo),
    ],
    ids=["root", "nobody", "sudo"],
)
def test_the_line_that_flashes(
    published: tuple[Product, Path],
    everybody: Path,
    line: str,
    prefix: Callable[[Path], list[str]],
    request: pytest.FixtureRequest,
) -> None:
    """The page's other line, word for word, with and without `sudo`."""
    product, _ = published
    folder = everybody / request.node.callspec.id
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    install_commands(folder / "bin", product)
    workspace = product.folder / "workspace"
    pinned = folder / "archive-master.tar.xz"
    shutil.copy(workspace / "trust/archive-master.tar.xz", pinned)
    with served(workspace / "www/system-image") as server:
        done = run.run(
            [*prefix(folder), "/bin/sh", "-c", line],
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
    owner = (folder / "x86.img").stat().st_uid
    assert owner == (65534 if prefix is as_nobody and os.geteuid() == 0 else os.geteuid())
    others = [path for path in everybody.glob("*/x86.img") if path.parent != folder]
    assert all(run.run(["cmp", folder / "x86.img", each]).status == 0 for each in others[:1])


@pytest.fixture(scope="module")
def everybody() -> Iterator[Path]:
    """A folder that every user may look into."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_each_build_remembers_what_was_asked_for(both: Published) -> None:
    box, plain, build = both.product.json("build", "list", "--workspace", "workspace")
    assert build["request"]["series"] == "vivid"
    assert build["request"]["version"] == both.system_image.name
    assert build["request"]["subproject"] == "system-image"
    assert plain["request"]["subproject"] == ""
    assert (plain["request"]["device"], box["request"]["device"]) == ("", "box")
    assert build["extra"]["extra_archives"] == ["snappy-dev/image"]
    assert build["fingerprint"]
