"""Questions about a server: which channels, which images, what an image holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coreimage.model.channels import Channels
from coreimage.model.index import Image, ImageType, Index


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer for people, as lines, and for machines."""

    lines: Sequence[str]
    fields: Any


def list_channels(channels: Channels, device: str) -> Answer:
    """Return the channels of a device that people are shown; aliases say what they follow."""
    shown = {
        name: channel
        for name, channel in sorted(channels.channels.items())
        if not channel.hidden and device in channel.devices
    }
    return Answer(
        lines=[
            f"{name} (alias to {channel.alias})" if channel.alias else name
            for name, channel in shown.items()
        ],
        fields=[{"name": name, "alias": channel.alias} for name, channel in shown.items()],
    )


def list_images(index: Index) -> Answer:
    """Return the full images of a channel, oldest first."""
    fulls = sorted(
        (image for image in index.images if image.type is ImageType.FULL),
        key=lambda image: image.version,
    )
    return Answer(
        lines=[f"{image.version}: description='{image.description}'" for image in fulls],
        fields=[
            {"version": image.version, "description": image.description, "size": image.size}
            for image in fulls
        ],
    )


def show_image(image: Image) -> Answer:
    """Return what an image is made of."""
    lines = [
        f"Description: {image.description}",
        f"Version: {image.version}",
        f"Version detail: {image.version_detail}",
        "Files:",
    ]
    for file in image.files:
        lines += [f" {file.order} {file.path} {file.size} {file.checksum}"]
    return Answer(
        lines=lines,
        fields={
            "version": image.version,
            "description": image.description,
            "version_detail": image.version_detail,
            "files": [
                {
                    "order": file.order,
                    "path": file.path,
                    "size": file.size,
                    "sha256": file.checksum,
                }
                for file in image.files
            ],
        },
    )
