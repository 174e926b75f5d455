"""C wrong software, G mix and match."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import (
    CoreImageError,
    DataError,
    NotFoundError,
    TrustError,
    UnavailableError,
)
from coreimage.model.index import Index
from tests.integration import channel_tree, liar
from tests.integration.channel_tree import CHANNEL, DEVICE
from tests.support.attacks import (
    OTHER,
    SIGNING,
    Client,
    Thief,
    honest_again,
    rebind,
    refused,
    revoke,
    rotate,
    served,
)
from tests.support.disks import content_of
from tests.support.programs import elf, pc_kernel

OTHER_DEVICE = "generic_arm64"

# C. Wrong software


def test_c1_an_image_of_another_channel_with_right_hashes(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Also when channels.json binds it: the image says what it was made for."""
    other = Index.from_json((thief.root / thief.index_path(OTHER)[1:]).read_bytes())
    rebind(thief, replace(other, extra={**other.extra, "channel": CHANNEL}))
    refused(client, server, f"image 1 says that it is for channel '{OTHER}'")
    honest_again(client, server, workspace, thief.root)


def test_c1_an_image_of_another_device_with_right_hashes(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """All its files are signed and of this channel; only the device is another one."""
    channel_tree.publish(workspace, 1, device=OTHER_DEVICE)
    served(workspace, thief.root)
    other = Index.from_json((thief.root / device_index(thief)).read_bytes())
    rebind(thief, replace(other, extra={**other.extra, "device": DEVICE}))
    refused(client, server, f"image 1 says that it is for device '{OTHER_DEVICE}', not '{DEVICE}'")
    honest_again(client, server, workspace, thief.root)


def test_c2_a_path_that_leads_out(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    document = json.loads((thief.root / thief.index_path()[1:]).read_bytes())
    for path in (
        "/pool/../../etc/passwd",
        "//evil.example/x.tar.xz",
        "http://evil.example/x.tar.xz",
        "/pool/%2e%2e/x.tar.xz",
        "/pool/x\0.tar.xz",
        "/pool/x\n.tar.xz",
        "/pool/a b.tar.xz",
        "pool/x.tar.xz",
    ):
        file = document["images"][0]["files"][0]
        file["path"], file["signature"] = path, f"{path}.asc"
        rebind(thief, json.dumps(document).encode())
        refused(client, server, "is not a path inside", kind=DataError)
    found = thief.read()
    for path in ("/pool/../../etc/passwd", "//evil.example/index.json", "/a\0/index.json"):
        entry = replace(found.device(CHANNEL, DEVICE), index=path)
        channel = replace(found.channels[CHANNEL], devices={DEVICE: entry})
        thief.channels(channels={**found.channels, CHANNEL: channel})
        refused(client, server, "is not a path inside", kind=DataError)
    honest_again(client, server, workspace, thief.root)


def test_c2_a_symlink_in_a_tree_on_disk(
    client: Client, workspace: Workspace, thief: Thief, tmp_path: Path
) -> None:
    del workspace
    assert client.fetch(str(thief.root)) == 2
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    for path in (thief.root / "pool").glob("*.tar.xz"):
        path.unlink()
        path.symlink_to(secret)
    with pytest.raises(CoreImageError) as raised:
        client.fetch(str(thief.root))
    assert raised.value.exit_code in (69, 76)
    assert "of somebody else" not in raised.value.message


def test_c3_the_index_of_another_channel(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Served in its place: not the bytes that were bound. Bound by a thief: not for this place."""
    mine, other = thief.index_path()[1:], thief.index_path(OTHER)[1:]
    for suffix in ("", ".asc"):
        shutil.copy(thief.root / f"{other}{suffix}", thief.root / f"{mine}{suffix}")
    refused(client, server, "has the sha256 [0-9a-f]{64}.*names [0-9a-f]{64}")
    found = thief.read()
    moved = replace(found.channels[CHANNEL], devices=found.channels[OTHER].devices)
    thief.channels(channels={**found.channels, CHANNEL: moved})
    refused(client, server, f"is for channel '{OTHER}', not '{CHANNEL}'")
    honest_again(client, server, workspace, thief.root)


def put_instead(server: liar.Liar, path: str, other: Path) -> None:
    """Serve another file with its own signature."""
    for suffix in ("", ".asc"):
        server.lies[f"{path}{suffix}"] = liar.instead(Path(f"{other}{suffix}").read_bytes())


def device_index(thief: Thief) -> str:
    """Return where the index of the other device lies in the tree."""
    return thief.read().device(CHANNEL, OTHER_DEVICE).index[1:]


def test_c3_the_index_of_another_device(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Served in its place by a liar; then bound there by a thief, under all signatures."""
    channel_tree.publish(workspace, 1, device=OTHER_DEVICE)
    served(workspace, thief.root)
    mine, other = thief.index_path(), device_index(thief)
    put_instead(server, mine, thief.root / other)
    refused(client, server, "has the sha256 [0-9a-f]{64}.*names [0-9a-f]{64}")
    server.lies.clear()
    found = thief.read()
    devices = found.channels[CHANNEL].devices
    moved = replace(found.channels[CHANNEL], devices={**devices, DEVICE: devices[OTHER_DEVICE]})
    thief.channels(channels={**found.channels, CHANNEL: moved})
    refused(client, server, f"is for device '{OTHER_DEVICE}', not '{DEVICE}'")
    honest_again(client, server, workspace, thief.root)


PC = {**channel_tree.DEVICE_FILES, "assets/vmlinuz": pc_kernel(wide=True)}


@pytest.mark.parametrize(
    ("rootfs", "device_files", "says"),
    [
        ({"system/sbin/init": elf("arm64")}, PC, "'sbin/init' of the image is for arm64, .*amd64"),
        ({"system/sbin/init": elf("i386")}, PC, "'sbin/init' of the image is for i386, .*amd64"),
        (
            {"system/sbin/init": elf("amd64")},
            {**PC, "assets/vmlinuz": bytes(0x38) + b"ARM\x64" + bytes(500)},
            "'assets/vmlinuz' of the image is for arm64, .*amd64",
        ),
        (
            {"system/sbin/init": elf("amd64")},
            {**PC, "hardware.yaml": channel_tree.HARDWARE.replace(b"grub", b"u-boot")},
            "the image wants bootloader 'u-boot', OEM package 'generic-amd64' 'grub'",
        ),
        (
            {"system/sbin/init": elf("amd64")},
            {**PC, "hardware.yaml": channel_tree.HARDWARE + b"partition-layout: minimal\n"},
            "the image wants partition-layout 'minimal', .*'system-AB'",
        ),
    ],
    ids=["programs", "narrow programs", "kernel", "bootloader", "layout"],
)
def test_c4_an_image_whose_content_is_for_another_machine(
    client: Client,
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    rootfs: dict[str, bytes],
    device_files: dict[str, bytes],
    says: str,
) -> None:
    """Channel, device, index and all signatures are right; what would run there is not."""
    channel_tree.publish(workspace, 3, rootfs=rootfs, device_files=device_files)
    served(workspace, thief.root)
    with pytest.raises(DataError, match=says) as raised:
        client.flash(server.url)
    assert raised.value.exit_code == 65
    assert not client.output.exists()
    channel_tree.publish(workspace, 4, rootfs={"system/sbin/init": elf("amd64")}, device_files=PC)
    served(workspace, thief.root)
    assert client.fetch(server.url) == 4


def test_c4_an_oem_package_that_the_channel_has_no_device_for(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Its architecture asks for a device, which a thief makes out of another one's images."""
    with pytest.raises(NotFoundError, match=f"no device '{OTHER_DEVICE}'") as raised:
        client.flash(server.url, oem="generic-arm64")
    assert DEVICE in raised.value.hint
    found = thief.read()
    devices = found.channels[CHANNEL].devices
    both = replace(found.channels[CHANNEL], devices={**devices, OTHER_DEVICE: devices[DEVICE]})
    thief.channels(channels={**found.channels, CHANNEL: both})
    with pytest.raises(TrustError, match=f"is for device '{DEVICE}', not '{OTHER_DEVICE}'"):
        client.flash(server.url, oem="generic-arm64")
    index = Index.from_json((thief.root / thief.index_path()[1:]).read_bytes())
    rebind(thief, replace(index, extra={**index.extra, "device": OTHER_DEVICE}), OTHER_DEVICE)
    with pytest.raises(TrustError, match=f"for device '{DEVICE}', not '{OTHER_DEVICE}'"):
        client.flash(server.url, oem="generic-arm64")
    assert not client.output.exists()
    honest_again(client, server, workspace, thief.root)


# G. Mix and match


def test_g1_new_channels_with_old_keyrings(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """An old blacklist with a new channels.json would bring a revoked key back."""
    old = shutil.copytree(thief.root / "gpg", thief.root.parent / "old-gpg")
    rotate(workspace, SIGNING)
    revoke(workspace, rotate(workspace, SIGNING))
    served(workspace, thief.root)
    for name in ("blacklist.tar.xz", "blacklist.tar.xz.asc"):
        shutil.copy(old / name, thief.root / "gpg" / name)
    refused(client, server, "the keyring 'blacklist' has the sha256 .* was published with")
    honest_again(client, server, workspace, thief.root)


@pytest.mark.parametrize("older", ["index", "channels"])
def test_g1_new_channels_with_an_old_index_or_the_other_way_round(
    client: Client,
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    first: Path,
    older: str,
) -> None:
    """Each with its own good signature, and each of a state that there was."""
    old, new = Thief(workspace, first).index_path(), thief.index_path()
    if older == "index":
        put_instead(server, new, first / old[1:])
    else:
        put_instead(server, "/channels.json", first / "channels.json")
        put_instead(server, old, thief.root / new[1:])
    refused(client, server, "has the sha256 [0-9a-f]{64}.*names [0-9a-f]{64}|shows an index")
    honest_again(client, server, workspace, thief.root)


def test_g1_the_server_publishes_between_two_requests(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, tmp_path: Path
) -> None:
    """Files of two states, once: asked again, and believed."""
    old = Path(shutil.copytree(thief.root, tmp_path / "before"))
    rotate(workspace, SIGNING)
    served(workspace, thief.root)

    def before(handler: liar.Handler, content: bytes) -> None:
        del content
        liar.honest(handler, (old / handler.path[1:]).read_bytes())

    for path in ("/gpg/image-signing.tar.xz", "/gpg/image-signing.tar.xz.asc"):
        server.lies[path] = liar.first(1, before)
    assert client.fetch(server.url) == 2


def test_g2_files_of_two_images_under_one_version(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """The root file system of one image in place of another's, where that is served."""
    index = Index.from_json((thief.root / thief.index_path()[1:]).read_bytes())
    one, two = (index.full(version).files[0].path[1:] for version in (1, 2))
    assert one != two
    for suffix in ("", ".asc"):
        shutil.copy(thief.root / f"{one}{suffix}", thief.root / f"{two}{suffix}")
    with pytest.raises((TrustError, UnavailableError)):
        client.fetch(server.url)
    honest_again(client, server, workspace, thief.root)


def test_g3_a_download_that_breaks_off_between_two_parts(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """What had come of one image is nothing of the next one, which is published meanwhile."""
    newest = Index.from_json((thief.root / thief.index_path()[1:]).read_bytes()).full(2)
    rootfs, device = (file.path for file in newest.files[:2])
    server.lies[device] = liar.failing
    with pytest.raises(UnavailableError, match="device-"):
        client.flash(server.url)
    assert not client.output.exists()
    assert (client.cache / newest.files[0].checksum).exists()
    channel_tree.publish(
        workspace,
        3,
        rootfs={"system/etc/hostname": b"third\n", "system/sbin/init": elf("amd64")},
        device_files={**PC, "system/etc/kernel": b"third\n"},
    )
    server.lies.clear()
    served(workspace, thief.root)
    server.requests.clear()
    assert client.flash(server.url) == 3
    assert not {rootfs, device} & {path for path, _ in server.requests}
    for path in ("hostname", "kernel"):
        assert content_of(client.output, "system-a", f"/etc/{path}") == b"third\n"
    assert content_of(client.output, "system-a", "/etc/ubuntu-build") == b"3\n"
