"""What is in a real build, and that it is what was published."""

import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from coreimage.rootfs.packages.manifest import read_manifest
from tests.system.conftest import Road

pytestmark = pytest.mark.system

BILL = "trixie-preinstalled-core-amd64.cdx.json"


def test_the_bill_of_materials_has_every_package_with_its_digest(road: Road) -> None:
    text = (road.artifacts / "livecd.debian-core.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    components = json.loads(text)["components"]
    manifest = (road.artifacts / "livecd.debian-core.manifest").read_text()
    versions = {
        name.partition(":")[0]: version
        for name, version in read_manifest(manifest, name="").items()
    }
    assert {each["name"]: each["version"] for each in components} == versions
    lock = json.loads((road.artifacts / "livecd.debian-core.lock.json").read_text())
    digests = {each["name"]: each["sha256"] for each in lock["packages"]}
    assert {each["name"]: each["hashes"][0]["content"] for each in components} == digests
    assert all(each["purl"].startswith("pkg:deb/debian/") for each in components)
    assert all(each["supplier"]["name"] for each in components)
    assert sum("licenses" in each for each in components) > len(components) / 2


def test_it_is_published(road: Road) -> None:
    place = road.workspace / "www/cdimage/debian-core/trixie/daily-preinstalled/pending"
    artifact = road.artifacts / "livecd.debian-core.cdx.json"
    assert (place / BILL).read_bytes() == artifact.read_bytes()
    assert f" *{BILL}\n" in (place / "SHA256SUMS").read_text()


def test_a_build_is_compared_with_what_was_published(road: Road) -> None:
    argv = ["rootfs", "diff", "1", "debian-core/trixie/pending"]
    said = road.product.run(*argv, "--workspace", road.workspace).stdout.decode()
    assert "packages: the same\n" in said
    assert said.count("0 entries differ\n") == 2
