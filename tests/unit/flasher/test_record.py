"""install.yaml, as the original has it and as we read it back."""

from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from coreimage.errors import DataError
from coreimage.flasher.disk.layout import ab_layout
from coreimage.flasher.local import Kind, LocalPart
from coreimage.flasher.oem.find import shipped_folder
from coreimage.flasher.oem.package import load_oem
from coreimage.flasher.options import Again
from coreimage.flasher.own.machine import NOTHING_OWN, Own
from coreimage.flasher.plan import FlashPlan
from coreimage.flasher.provision import NO_ACCESS, Access
from coreimage.flasher.record import Record, record_of
from coreimage.model.index import Image, ImageFile, ImageType

TIME = 1_767_225_600
FILE = ImageFile(order=0, path="/pool/x.tar.xz", checksum="0" * 64, size=1_500_000)
PART = LocalPart(kind=Kind.DEVICE, path=Path("/x/d"), label="d", sha256="1" * 64, size=1)


def plan(
    *,
    output: str = "x86.img",
    server: str = "https://system-image.example",
    access: Access = NO_ACCESS,
    own: Own = NOTHING_OWN,
    local: tuple[LocalPart, ...] = (),
    again: Again | None = None,
    size: int = 4 * 10**9,
) -> FlashPlan:
    return FlashPlan(
        output=Path(output),
        server=server,
        channel="ubuntu-core/15.04/edge",
        channel_names=["ubuntu-core/15.04/edge"],
        oem=load_oem(shipped_folder() / "generic-amd64"),
        device="generic_amd64",
        image=Image(type=ImageType.FULL, version=57, files=[FILE]),
        download_size=0,
        layout=ab_layout(size=size, seed=b"seed"),
        seed=b"seed",
        access=access,
        own=own,
        local=local,
        again=again,
        size=size,
    )


def test_it_has_the_parts_and_names_of_the_original() -> None:
    access = Access(ssh=True, developer_mode=True)
    text = record_of(plan(access=access, local=(PART,)), time=TIME).to_yaml()
    assert yaml.safe_load(text) == {
        "meta": {
            "timestamp": "2026-01-01T00:00:00Z",
            "initial-version": "57",
            "device": "generic_amd64",
            "oem-version": "1.0",
        },
        "tool": {"name": "coreimage", "version": version("coreimage")},
        "options": {
            "size": 4,
            "size-unit": "GB",
            "channel": "ubuntu-core/15.04/edge",
            "device-part": f"sha256:{'1' * 64}",
            "oem": "generic-amd64",
            "enable-ssh": True,
            "developer-mode": True,
        },
    }


def test_nothing_of_the_machine_that_made_it_is_in_it() -> None:
    one = record_of(plan(), time=TIME)
    assert one == record_of(plan(output="other.img", server="/srv/tree"), time=TIME)


def test_what_was_written_is_read_back() -> None:
    record = record_of(plan(own=Own(hostname="kiosk"), size=4 * 10**9 + 512), time=TIME)
    found = Record.from_yaml(record.to_yaml().encode(), source="x86.img")
    assert found == record
    assert (found.version, found.size) == (57, 4 * 10**9 + 512)
    assert found.again().seed == b"seed"


def test_made_again_it_is_the_same_whatever_the_tool_is_now() -> None:
    again = Again(tool="0.0.1", seed=b"other", packages=["hello 1.0"])
    text = record_of(plan(again=again), time=TIME).to_yaml()
    assert Record.from_yaml(text.encode(), source="x86.img").again() == again


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name: "coreimage"', "name: []"),
        ('"57"', '"-1"'),
        ("GB", "PB"),
        ("meta:", "mete:"),
        ("\n", "\n\t"),
        ("edge", "x" * 70_000),
    ],
)
def test_what_is_no_record_is_refused(old: str, new: str) -> None:
    text = record_of(plan(), time=TIME).to_yaml()
    assert old in text
    with pytest.raises(DataError, match=r"x86\.img: install\.yaml"):
        Record.from_yaml(text.replace(old, new).encode(), source="x86.img")
