"""The line of the original page, word for word, against an archive that the test makes and signs.

The packages are the host's own distribution's, published once more as the suite vivid.
"""

import gzip
import tarfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreimage.lib import run
from tests.support.foreign_keys import foreign_gpg
from tests.support.local_archive import LocalArchive, served
from tests.support.product import SOURCES, Product

pytestmark = pytest.mark.system

LINE = (
    "SUBPROJECT=system-image EXTRA_PPAS=snappy-dev/image "
    "for-project ubuntu-core cron.daily-preinstalled --live"
)
KERNELS = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-virtual"}
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
packages = ["initramfs-tools", "snappy-tools"]
exclude_paths = ["/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*"]

[releases."15.04"]
series = "vivid"
suites = ["vivid"]

[architectures.amd64]
bootloader = "grub"
packages = ["{kernel}"]
"""


def host_distribution() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    (found,) = (line.partition("=")[2] for line in lines if line.startswith("ID="))
    return found.strip('"')


def download(folder: Path, *names: str) -> list[Path]:
    """Fetch packages, and all that an empty system needs for them, from the host's archive."""
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True)
    options = {
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
        "Dir::Cache": folder,
        "Dir::State::Lists": folder / "lists",
        "Dir::State::status": "/dev/null",
    }
    words = [word for key, value in options.items() for word in ("--option", f"{key}={value}")]
    run.run(["apt-get", *words, "--quiet", "update"])
    wanted = ["?essential", "apt", *names]
    run.run(["apt-get", *words, "--quiet", "--yes", "--download-only", "install", *wanted])
    return sorted((folder / "archives").glob("*.deb"))


@contextmanager
def archives(ground: Path, kernel: str) -> Iterator[str]:
    """Yield a workspace's settings for an archive `vivid` and a PPA `snappy-dev/image`."""
    tree, keys = ground / "vivid", ground / "ppa-keys"
    keys.mkdir()
    with foreign_gpg() as main_gpg, foreign_gpg() as ppa_gpg, served(tree) as mirror:
        archive = LocalArchive(root=tree / "archive", gpg=main_gpg)
        for package in download(ground / "download", "initramfs-tools", kernel):
            archive.take(package)
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
    kernel = KERNELS[host_distribution()]
    product = Product(folder=ground / "cron")
    product.folder.mkdir()
    product.run("init", "workspace")
    root = product.folder / "workspace"
    definition = root / "definitions/ubuntu-core/definition.toml"
    definition.parent.mkdir(parents=True)
    definition.write_text(DEFINITION.format(kernel=kernel))
    install_commands(ground / "bin", product)
    with archives(ground, kernel) as settings:
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


def test_each_build_remembers_what_was_asked_for(published: tuple[Product, Path]) -> None:
    product, place = published
    (build,) = product.json("build", "list", "--workspace", "workspace")
    assert build["request"]["series"] == "vivid"
    assert build["request"]["version"] == place.name
    assert build["extra"]["extra_archives"] == ["snappy-dev/image"]
    assert build["fingerprint"]
