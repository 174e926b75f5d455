"""Debian Core for architectures other than this machine's, built for real.

Under qemu-user a build takes ten times as long as on the processor itself.
"""

import json
import struct
import tarfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from coreimage.model.hardware import Hardware
from tests.support.product import Product

pytestmark = [pytest.mark.system, pytest.mark.long]

# The architecture is what is tried here: one suite is enough.
DEFINITION = """\
name = "plain-core"
title = "Plain Core"
extends = "debian-core"
releases.12 = { series = "bookworm", suites = ["bookworm"], packages = ["usr-is-merged"] }
releases.13 = { series = "trixie", suites = ["trixie"] }
"""
# e_machine of an ELF header. Source: elf(5).
MACHINES = {"i386": 3, "armhf": 40, "arm64": 183}


def members(tarball: Path, *wanted: str) -> tuple[list[str], dict[str, bytes]]:
    """Return all names of a tarball, and the contents of some."""
    names, contents = [], {}
    with tarfile.open(tarball) as archive:
        for member in archive:
            names.append(member.name)
            reader = archive.extractfile(member) if member.name in wanted else None
            if reader is not None:
                contents[member.name] = reader.read()
    return names, contents


def boots(product: Product, oem: str) -> None:
    """Flash what was built and boot it, by the firmware that machines of its kind usually have."""
    product.run("flash", "core", "--rootfs", "out", "--oem", oem, "--output", "disk.img")
    argv = ["boot", "disk.img", "--test", "--timeout", "1500", "--json"]
    (report,) = json.loads(product.run(*argv, timeout=3600).stdout)
    assert report["outcome"] == "passed", report


@pytest.mark.parametrize(
    ("release", "arch", "bootloader"),
    [("12", "i386", "grub"), ("13", "arm64", "grub"), ("12", "armhf", "u-boot")],
)
def test_a_foreign_architecture(ground: Path, release: str, arch: str, bootloader: str) -> None:
    folder = ground / f"{release}-{arch}"
    (folder / "definitions/plain-core").mkdir(parents=True)
    (folder / "coreimage.toml").touch()
    (folder / "definitions/plain-core/definition.toml").write_text(DEFINITION)
    words = ["--release", release, "--arch", arch, "--output", "out"]
    argv = ["rootfs", "build", "plain-core", *words, "--workspace", folder]
    Product(folder=folder).run(*argv, timeout=5400)

    names, contents = members(folder / "out/livecd.plain-core.rootfs.tar.gz", "usr/bin/dash")
    dash = (
        contents.get("usr/bin/dash")
        or members(folder / "out/livecd.plain-core.rootfs.tar.gz", "bin/dash")[1]["bin/dash"]
    )
    assert struct.unpack_from("<H", dash, 18)[0] == MACHINES[arch]
    assert not [name for name in names if "linux-image-" in name and name.endswith(".dtb")]

    names, contents = members(folder / "out/livecd.plain-core.device.tar.gz", "hardware.yaml")
    hardware = Hardware.from_yaml(contents["hardware.yaml"].decode())
    assert hardware.bootloader == bootloader
    assert {"assets/vmlinuz", "assets/initrd.img"} <= set(names)
    trees = [name for name in names if name.endswith(".dtb")]
    if bootloader == "u-boot":
        assert hardware.dtbs == "assets/dtbs"
        assert any(name.startswith("assets/dtbs/bcm2836-rpi-2-b") for name in trees)
        assert all(name.startswith("assets/dtbs/") for name in trees)
    else:
        assert (hardware.dtbs, trees) == ("", [])

    if bootloader == "grub":
        boots(Product(folder=folder), f"generic-{arch}")
    bill = (folder / "out/livecd.plain-core.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    components = json.loads(bill)["components"]
    assert all(each.get("hashes") for each in components)
    assert {each["purl"].partition("arch=")[2].partition("&")[0] for each in components} == {
        arch,
        "all",
    }
