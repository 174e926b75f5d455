import json
from pathlib import Path

import pytest

from coreimage.errors import DataError, NotFoundError
from coreimage.rootfs.diff.sides import find_side, packages_of

STATUS = """\
Package: dash
Status: install ok installed
Version: 1:0.5-1+b1
Architecture: amd64
Multi-Arch: same
Source: shell (1:0.5-1)
"""


def component(name: str, version: str, digest: str) -> dict[str, object]:
    return {
        "name": name,
        "version": version,
        "purl": f"pkg:deb/debian/{name}@{version}?arch=amd64&distro=trixie",
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    (tmp_path / "livecd.core.manifest").write_text(
        "dash:amd64\t1:0.5-1+b1\nlibc6:amd64\t2\nlibc6:i386\t2\n"
    )
    document = {"components": [component("dash", "1:0.5-1+b1", "a" * 64)]}
    (tmp_path / "livecd.core.cdx.json").write_text(json.dumps(document))
    return tmp_path


def test_a_publication_has_devices_beside_their_architecture(tmp_path: Path) -> None:
    for target in ("amd64", "amd64.box", "armhf.my-amd64"):
        (tmp_path / f"trixie-preinstalled-core-{target}.manifest").touch()
        (tmp_path / f"trixie-preinstalled-core-{target}.tar.gz").touch()

    for target in ("amd64", "amd64.box", "armhf.my-amd64"):
        side = find_side(tmp_path, name="x", arch=target)
        assert side.rootfs == tmp_path / f"trixie-preinstalled-core-{target}.tar.gz"
    with pytest.raises(NotFoundError, match="several architectures") as caught:
        find_side(tmp_path, name="x", arch=None)
    assert caught.value.hint == "name one by --arch: amd64.box, amd64, armhf.my-amd64"
    with pytest.raises(NotFoundError, match="no build for 'armhf'"):
        find_side(tmp_path, name="x", arch="armhf")


def test_packages_come_with_all_that_is_known_of_them(artifacts: Path) -> None:
    side = find_side(artifacts, name="x", arch=None)
    found = packages_of(side, STATUS.encode())
    assert set(found) == {"dash", "libc6:amd64", "libc6:i386"}
    dash = found["dash"]
    assert (dash.version, dash.source, dash.source_version) == ("1:0.5-1+b1", "shell", "1:0.5-1")
    assert dash.sha256 == "a" * 64
    # In an archive, and in apt's cache.
    assert set(dash.files) == {"dash_0.5-1+b1_amd64.deb", "dash_1%3a0.5-1+b1_amd64.deb"}
    assert found["libc6:i386"].sha256 == ""


def test_a_build_without_its_bill_is_known_by_its_manifest(artifacts: Path) -> None:
    (artifacts / "livecd.core.cdx.json").unlink()
    found = packages_of(find_side(artifacts, name="x", arch=None), b"")
    assert (found["dash"].sha256, found["dash"].source) == ("", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"components": [1]}',
        '{"components": [{"hashes": [{}]}]}',
        '{"components": {"a": 1}}',
        '{"components": [{"name": "a", "version": 1, "purl": "", "hashes": [{"content": "x"}]}]}',
    ],
)
def test_a_bill_that_is_none_is_refused_by_name(artifacts: Path, text: str) -> None:
    (artifacts / "livecd.core.cdx.json").write_text(text)
    with pytest.raises(DataError, match=r"livecd\.core\.cdx\.json"):
        packages_of(find_side(artifacts, name="x", arch=None), b"")
