import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from coreimage.rootfs.packages.installed import InstalledPackage
from coreimage.rootfs.packages.sbom import Contents, bill_of_materials, package_url

DASH = InstalledPackage(
    name="dash",
    version="1:0.5.12-12+b1",
    architecture="arm64",
    source="dash",
    source_version="1:0.5.12-12",
    maintainer="Andrej Shadura <andrewsh@example.org>",
    homepage="http://gondor.example/~herbert/dash/",
    summary="POSIX-compliant shell \u2014 ash",
    multi_arch="",
)
LIBC = replace(DASH, name="libc6", source="glibc", version="2.41-12", source_version="2.41-12")
ODD = replace(DASH, name="a+b", maintainer="", homepage="see the wiki", summary="", source="a+b")
CONTENTS = Contents(
    name="debian-core",
    title="Debian Core",
    distribution="debian",
    release="13",
    series="trixie",
    arch="arm64",
    made_at=datetime(2026, 11, 23, 11, 22, tzinfo=UTC),
    packages=[LIBC, DASH, ODD],
    artifacts={"livecd.debian-core.rootfs.tar.gz": "1" * 64},
    digests={
        ("dash", "1:0.5.12-12+b1", "arm64"): "a" * 64,
        ("libc6", "2.41-12", "amd64"): "b" * 64,
    },
    licences={"dash": ["BSD-3-clause", "Expat"]},
)


def components(text: str) -> Mapping[str, Any]:
    return {each["name"]: each for each in json.loads(text)["components"]}


@pytest.mark.parametrize("contents", [CONTENTS, replace(CONTENTS, packages=(), artifacts={})])
def test_it_is_valid(contents: Contents) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill_of_materials(contents)) is None


def test_a_package_with_all_that_is_known_of_it() -> None:
    found = components(bill_of_materials(CONTENTS))
    assert list(found) == ["a+b", "dash", "libc6"]
    dash = found["dash"]
    assert dash["version"] == "1:0.5.12-12+b1"
    assert PackageURL.from_string(dash["purl"]) == PackageURL(
        type="deb",
        namespace="debian",
        name="dash",
        version="1:0.5.12-12+b1",
        qualifiers={"arch": "arm64", "distro": "trixie", "upstream": "dash@1:0.5.12-12"},
    )
    assert dash["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert [each["license"]["name"] for each in dash["licenses"]] == ["BSD-3-clause", "Expat"]
    assert dash["supplier"]["name"] == "Andrej Shadura"
    assert dash["supplier"]["contact"][0]["email"] == "andrewsh@example.org"
    assert dash["externalReferences"] == [
        {"type": "website", "url": "http://gondor.example/~herbert/dash/"}
    ]
    assert dash["properties"] == [{"name": "coreimage:source", "value": "dash 1:0.5.12-12"}]


def test_what_is_not_known_is_left_out() -> None:
    found = components(bill_of_materials(CONTENTS))
    assert "hashes" not in found["libc6"]  # the digest is of another architecture
    assert not {"supplier", "externalReferences", "description", "licenses"} & found["a+b"].keys()


def test_it_says_what_depends_on_what() -> None:
    other = replace(LIBC, architecture="amd64")
    awk = replace(ODD, name="mawk", provides=("awk",))
    packages = [replace(DASH, depends=("awk", "libc6", "none")), LIBC, other, awk]
    document = json.loads(bill_of_materials(replace(CONTENTS, packages=packages)))
    urls = {each["purl"]: each["name"] for each in document["components"]}
    found = {each["ref"]: each.get("dependsOn", []) for each in document["dependencies"]}
    (dash,) = (url for url, name in urls.items() if name == "dash")
    assert sorted(urls[url] for url in found[dash]) == ["libc6", "mawk"]
    assert all("arch=arm64" in url for url in found[dash])
    assert len(found["debian-core-13-arm64"]) == 4


def test_upstream_is_the_source_where_it_is_called_otherwise() -> None:
    def upstream(package: InstalledPackage) -> object:
        url = package_url(package, distribution="debian", series="trixie")
        assert isinstance(url.qualifiers, dict)
        return url.qualifiers.get("upstream")

    assert upstream(LIBC) == "glibc"
    assert upstream(replace(LIBC, source_version="2.41-11")) == "glibc@2.41-11"
    assert upstream(replace(LIBC, source="libc6")) is None


def test_the_same_build_has_the_same_bytes_and_another_one_another_serial_number() -> None:
    text = bill_of_materials(CONTENTS)
    assert text == bill_of_materials(replace(CONTENTS, packages=[ODD, DASH, LIBC]))
    document = json.loads(text)
    assert document["metadata"]["timestamp"] == "2026-11-23T11:22:00+00:00"
    assert document["metadata"]["component"]["name"] == "debian-core"
    assert document["metadata"]["component"]["components"][0]["hashes"][0]["content"] == "1" * 64
    others = [
        replace(CONTENTS, artifacts={"livecd.debian-core.rootfs.tar.gz": "2" * 64}),
        replace(CONTENTS, arch="amd64"),
        replace(CONTENTS, made_at=datetime(2026, 11, 24, tzinfo=UTC)),
    ]
    serials = {json.loads(bill_of_materials(each))["serialNumber"] for each in (CONTENTS, *others)}
    assert len(serials) == 4
