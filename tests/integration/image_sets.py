"""What tests of image sets share: a definition, a small program that builds, and how to look."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage import imageset
from coreimage.config import Workspace, load_workspace
from coreimage.imageset import Order, When, make_set
from coreimage.lib.files import sha256_of
from coreimage.lib.progress import Silent
from coreimage.model.build import BuildRequest
from coreimage.model.publication import Publication, parse_checksums

DEFINITION = """\
name = "ubuntu-core"
title = "Core"
distribution = "ubuntu"
default_release = "15.04"
releases."15.04" = { series = "vivid", suites = ["vivid"] }
architectures.amd64 = { bootloader = "grub" }
architectures.arm64 = { bootloader = "grub" }
devices.box = { arch = "amd64" }
"""
# What a builder leaves, with the words that it was called with in place of a tree.
WRITES = """
import hashlib, json, pathlib, sys
output, text = pathlib.Path(sys.argv[1]), sys.argv[2]
digests = {}
for kind in ("rootfs.tar.gz", "device.tar.gz", "manifest", "cdx.json"):
    path = output / f"livecd.ubuntu-core.{kind}"
    path.write_text(f"{kind} {text}")
    digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
record = {"product": "core", "sha256": digests, "fingerprint": text}
(output / "livecd.ubuntu-core.build.json").write_text(json.dumps(record))
"""
FAILS = "import sys; print('coreimage: error: no hook'); sys.exit(65)"
TODAY = "20150511"


def noon() -> datetime:
    return datetime(2015, 5, 11, 12, 0, tzinfo=UTC)


class Builder:
    """Stands in for the rootfs command; remembers what it was asked for."""

    def __init__(self, failing: Mapping[str, str] | None = None, text: str = "one") -> None:
        self._failing = failing or {}
        self._text = text
        self.asked: list[tuple[str, list[str]]] = []
        self.requests: list[BuildRequest] = []

    def __call__(self, request: BuildRequest, output: Path, extra: Sequence[str]) -> list[str]:
        self.asked.append((request.target, list(extra)))
        self.requests.append(request)
        script = self._failing.get(request.target, WRITES)
        return [sys.executable, "-c", script, str(output), f"{request.target} {self._text}"]


class Hearer(Silent):
    """Remembers the stages that it hears of."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, title: str) -> None:
        self.stages.append(title)


@pytest.fixture(name="space")
def space_fixture(workspace: Workspace) -> Workspace:
    definition = workspace.root / "definitions/ubuntu-core/definition.toml"
    definition.parent.mkdir(parents=True)
    definition.write_text(DEFINITION)
    config = workspace.root / "coreimage.toml"
    config.write_text(f"{config.read_text()}\n[farm]\nretry_delay = 0\n")
    return load_workspace(workspace.root)


def trigger(
    space: Workspace,
    builder: Builder,
    *,
    arches: Sequence[str] = ("amd64", "arm64"),
    when: When = When.ALWAYS,
    extra: Sequence[str] = (),
) -> imageset.Outcome:
    return make_set(
        space,
        Order(project="ubuntu-core", arches=arches, extra_archives=extra),
        when=when,
        host="amd64",
        progress=Silent(),
        command=builder,
        clock=noon,
    )


def directory(space: Workspace, version: str = TODAY) -> Path:
    place = Publication(project="ubuntu-core", series="vivid", version=version)
    return space.publications / place.path


def published(space: Workspace, version: str = TODAY) -> dict[str, str]:
    """Return the texts of what was published, after a look at the checksums."""
    place = directory(space, version)
    sums = parse_checksums((place / "SHA256SUMS").read_text(), source="")
    assert {path.name for path in place.glob("vivid-*")} == set(sums)
    assert all(sha256_of(place / name) == digest for name, digest in sums.items())
    return {
        name.removeprefix("vivid-preinstalled-core-"): (place / name).read_text() for name in sums
    }


def tarballs(**texts: str) -> dict[str, str]:
    return {
        f"{arch}.{kind}": f"{kind if kind != 'tar.gz' else 'rootfs.tar.gz'} {arch} {text}"
        for arch, text in texts.items()
        for kind in ("tar.gz", "device.tar.gz", "manifest", "cdx.json")
    }
