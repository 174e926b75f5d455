from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from coreimage.config import Workspace
from coreimage.model.channels import Channel, Channels, Device
from coreimage.model.index import Image, ImageFile, ImageType, Index

PUBLISHED = datetime(2026, 11, 23, 14, 46, 23, tzinfo=UTC)


def put_index(workspace: Workspace, channel: str, device: str, *versions: int) -> Device:
    """Write an index with full images as the server lays it out and return its entry."""
    images = [
        Image(
            type=ImageType.FULL,
            version=version,
            version_detail=f"ubuntu=20261123,version={version}",
            files=[
                ImageFile(order=0, path="/pool/a.tar.xz", checksum="0" * 64, size=95_740_000),
                ImageFile(order=1, path="/pool/b.tar.xz", checksum="1" * 64, size=41_860_000),
            ],
        )
        for version in versions
    ]
    folder = workspace.channel_tree / channel / device
    folder.mkdir(parents=True)
    index = Index(generated_at=PUBLISHED, images=images)
    (folder / "index-abc.json").write_text(index.to_json())
    return Device(index=f"/{channel}/{device}/index-abc.json")


def put_channels(workspace: Workspace, channels: dict[str, Channel]) -> None:
    state = workspace.channel_tree / "states/7"
    state.mkdir(parents=True)
    (state / "channels.json").write_text(Channels(channels=channels).to_json())
    (workspace.channel_tree / "state").symlink_to("states/7")
    (workspace.channel_tree / "channels.json").symlink_to("state/channels.json")


def test_channels_devices_and_newest_versions(client: TestClient, workspace: Workspace) -> None:
    edge = "ubuntu-core/15.04/edge"
    put_channels(
        workspace,
        {
            edge: Channel(
                devices={
                    "generic_amd64": put_index(workspace, edge, "generic_amd64", 9, 57, 10),
                    "generic_armhf": put_index(workspace, edge, "generic_armhf"),
                }
            ),
            "devel": Channel(devices={}, alias=edge),
        },
    )
    page = client.get("/").text

    assert edge in page
    assert f'<a href="/{edge}/generic_amd64/index-abc.json">generic_amd64</a>' in page
    assert "<strong>57</strong>" in page
    assert "ubuntu=20261123,version=57" in page
    assert "138 MB" in page
    assert "2026-11-23 14:46" in page
    assert "no image yet" in page
    assert "follows</span> ubuntu-core/15.04/edge" in page
    assert client.get(f"/{edge}/generic_amd64/index-abc.json").status_code == 200


def test_hidden_channels_are_not_shown(client: TestClient, workspace: Workspace) -> None:
    put_channels(
        workspace,
        {"private": Channel(devices={}, hidden=True), "public": Channel(devices={})},
    )
    page = client.get("/").text

    assert "public" in page
    assert "private" not in page


@pytest.mark.parametrize(
    "index", ["/missing.json", "/../coreimage.toml", "//host/x", "/channels.json"]
)
def test_a_bad_index_spoils_its_line_only(
    client: TestClient, workspace: Workspace, index: str
) -> None:
    put_channels(
        workspace,
        {
            "bad": Channel(devices={"one": Device(index=index)}),
            "good": Channel(devices={"two": put_index(workspace, "good", "two", 3)}),
        },
    )
    answer = client.get("/")

    assert answer.status_code == 200
    assert "cannot be read: " in answer.text
    assert "<strong>3</strong>" in answer.text


def test_a_bad_channels_json_is_said(client: TestClient, workspace: Workspace) -> None:
    (workspace.channel_tree / "channels.json").write_text("[]")

    assert "The channels cannot be read: channels.json is not an object" in client.get("/").text


def test_everything_is_escaped(client: TestClient, workspace: Workspace) -> None:
    hostile = "<script>alert(1)</script>"
    (workspace.publications / hostile.replace("/", "")).mkdir()
    put_channels(
        workspace,
        {hostile: Channel(devices={hostile: Device(index=hostile)}, alias=hostile + "2")},
    )

    assert "<script" not in client.get("/").text


def test_publications_are_linked(client: TestClient, workspace: Workspace) -> None:
    (workspace.publications / "ubuntu-core").mkdir()
    (workspace.publications / ".scratch-1").mkdir()
    page = client.get("/").text

    assert '<a href="/cdimage/ubuntu-core/">ubuntu-core</a>' in page
    assert "scratch" not in page
