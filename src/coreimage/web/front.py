"""The front page: what this server is, its channels and their newest images."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from starlette.responses import HTMLResponse

from coreimage.errors import CoreImageError, NotFoundError
from coreimage.model.channels import Channel, Channels, Device
from coreimage.model.index import Index, check_path
from coreimage.web.pages import page
from coreimage.web.trees import Folder, open_beneath


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLine:
    """A device of a channel; `version` is None when it has no image, `complaint` says why."""

    name: str
    version: int | None = None
    detail: str = ""
    size: int = 0
    published: datetime | None = None
    index: str = ""
    complaint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSection:
    """A channel as it is shown."""

    name: str
    alias: str | None
    devices: list[DeviceLine]


def read_channels(tree: Path) -> list[ChannelSection]:
    """Return the channels that are not hidden, by name; raises DataError, NotFoundError."""
    channels = Channels.from_json(_read(tree, "channels.json")).channels
    return [
        _section(tree, name, channel)
        for name, channel in sorted(channels.items())
        if not channel.hidden
    ]


def _section(tree: Path, name: str, channel: Channel) -> ChannelSection:
    lines = [_line(tree, each, device) for each, device in sorted(channel.devices.items())]
    return ChannelSection(name=name, alias=channel.alias, devices=lines)


def _line(tree: Path, name: str, device: Device) -> DeviceLine:
    try:
        path = check_path(device.index)
        index = Index.from_json(_read(tree, path.removeprefix("/")))
    except CoreImageError as error:
        return DeviceLine(name=name, complaint=f"cannot be read: {error.message}")
    newest = index.newest_full()
    if newest is None:
        return DeviceLine(name=name, index=path, complaint="no image yet")
    return DeviceLine(
        name=name,
        version=newest.version,
        detail=newest.version_detail,
        size=newest.size,
        published=index.generated_at,
        index=path,
    )


def _read(tree: Path, path: str) -> bytes:
    found = open_beneath(tree, path)
    if isinstance(found, Folder):
        raise NotFoundError(f"'{path}' is a directory")
    with found:
        return found.read()


def _projects(publications: Path) -> Iterator[str]:
    if publications.is_dir():
        yield from sorted(
            path.name
            for path in publications.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        )


def front_page(tree: Path, publications: Path) -> HTMLResponse:
    """Return the front page, also when there are no channels yet or they cannot be read."""
    channels, complaint = list[ChannelSection](), ""
    try:
        channels = read_channels(tree)
    except CoreImageError as error:
        complaint = error.message if (tree / "channels.json").exists() else ""
    return page(
        "front.html",
        channels=channels,
        complaint=complaint,
        projects=list(_projects(publications)),
    )
