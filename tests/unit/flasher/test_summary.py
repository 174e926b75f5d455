from pathlib import Path

from coreimage.flasher.disk.layout import ab_layout
from coreimage.flasher.oem.find import shipped_folder
from coreimage.flasher.oem.package import load_oem
from coreimage.flasher.plan import FlashPlan
from coreimage.flasher.provision import NO_ACCESS, Access, parse_keys
from coreimage.flasher.query import list_channels, list_images, show_image
from coreimage.flasher.summary import launcher, plan_fields, plan_lines, summary_lines
from coreimage.model.channels import Channel, Channels, Device
from coreimage.model.index import Image, ImageFile, ImageType, Index, parse_time

KEYS = parse_keys(
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9nBWPrYPuTd7f8CdXbNLSCEmZ0iC8MpbQZrpM3iF1j me",
    source="me.pub",
)
FILE = ImageFile(order=0, path="/pool/x.tar.xz", checksum="0" * 64, size=1_500_000)
IMAGE = Image(type=ImageType.FULL, version=57, files=[FILE], description="nightly")


def plan(*, output: str = "x86.img", access: Access = NO_ACCESS) -> FlashPlan:
    return FlashPlan(
        output=Path(output),
        server="https://system-image.example",
        channel="ubuntu-core/15.04/edge",
        channel_names=["ubuntu-core/15.04/edge"],
        oem=load_oem(shipped_folder() / "generic-amd64"),
        device="generic_amd64",
        image=IMAGE,
        download_size=1_500_000,
        layout=ab_layout(size=4 * 10**9, seed=b"seed"),
        seed=b"seed",
        access=access,
    )


def test_the_summary_is_the_one_that_people_know() -> None:
    assert summary_lines(plan(), program="kvm") == [
        "New image complete",
        "Summary:",
        " Output: x86.img",
        " Architecture: amd64",
        " Channel: edge",
        " Version: 57",
        "Launch by running: kvm -m 768 x86.img",
        "or: coreimage boot x86.img",
    ]


def test_with_a_key_the_summary_says_how_to_log_in() -> None:
    access = Access(ssh=True, keys=KEYS)
    lines = summary_lines(
        plan(output="my image", access=access), program="kvm", private_key=Path("my image.ssh-key")
    )
    assert f" SSH key: {KEYS[0].fingerprint} me" in lines
    assert lines[-3].startswith("Launch by running: kvm -m 768 -nic user,")
    assert lines[-3].endswith(":8022-:22 'my image'")
    assert lines[-2] == "or: coreimage boot 'my image' --ssh-port 8022"
    assert lines[-1] == "Log in by running: ssh -i 'my image.ssh-key' -p 8022 core@localhost"


def test_the_plan_tells_everything_beforehand() -> None:
    lines = "\n".join(plan_lines(plan()))
    for part in ("4 GB", "version 57", "1.50 MB", "system-a: 1024 MiB", "log in: nobody"):
        assert part in lines
    access = Access(ssh=True, keys=KEYS, developer_mode=True)
    assert KEYS[0].fingerprint in "\n".join(plan_lines(plan(access=access)))


def test_machines_are_told_the_same() -> None:
    fields = plan_fields(plan(access=Access(ssh=True, keys=KEYS)))
    assert fields["version"] == 57
    assert fields["ssh_keys"] == [KEYS[0].fingerprint]
    assert fields["files"] == [{"path": "/pool/x.tar.xz", "size": 1_500_000, "sha256": "0" * 64}]
    assert [each["name"] for each in fields["partitions"]][-1] == "writable"


def test_kvm_is_named_only_where_it_works() -> None:
    assert launcher(plan(), kvm=False) == "qemu-system-x86_64"
    assert launcher(plan(), kvm=True) == "kvm"


def test_channels_of_a_device_are_listed_and_aliases_say_so() -> None:
    device = {"generic_amd64": Device(index="/i.json")}
    channels = Channels(
        channels={
            "core/stable": Channel(devices=device, alias="core/13/stable"),
            "core/13/stable": Channel(devices=device),
            "core/13/arm": Channel(devices={"generic_arm64": Device(index="/i.json")}),
            "core/13/secret": Channel(devices=device, hidden=True),
        }
    )
    answer = list_channels(channels, "generic_amd64")
    assert answer.lines == ["core/13/stable", "core/stable (alias to core/13/stable)"]
    assert answer.fields[1] == {"name": "core/stable", "alias": "core/13/stable"}


def test_full_images_are_listed_and_shown() -> None:
    delta = Image(type=ImageType.DELTA, version=58, base=57, files=[FILE])
    index = Index(generated_at=parse_time("Mon Nov 23 14:46:23 UTC 2026"), images=[delta, IMAGE])
    assert list_images(index).lines == ["57: description='nightly'"]
    shown = show_image(IMAGE)
    assert "Version: 57" in shown.lines
    assert shown.fields["files"][0]["sha256"] == "0" * 64
