"""The command `coreimage image`: the images of a channel."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreimage.cli.console import (
    DryRunOption,
    JsonOption,
    WorkspaceOption,
    print_json,
    print_table,
    progress,
)
from coreimage.cli.space import load_space

if TYPE_CHECKING:
    from coreimage.model.index import Image
    from coreimage.systemimage.imports.importer import ImportPlan

app = typer.Typer(
    help="The images of a channel: import, offer, promote and withdraw them, and keep house.",
    no_args_is_help=True,
)

ChannelArgument = Annotated[
    str, typer.Argument(help="The channel, for example debian-core/13/edge.")
]
DeviceArgument = Annotated[str, typer.Argument(help="The device, for example generic_amd64.")]


@app.command(name="list")
def list_images(
    channel: ChannelArgument,
    device: DeviceArgument = "generic_amd64",
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """List the images of a device in a channel.

    Example: coreimage image list debian-core/13/edge generic_amd64
    """
    from coreimage.systemimage.tree import layout

    place = load_space(workspace)
    images = layout.read_index(place, channel, device).images
    if json:
        print_json([_fields(image) for image in images])
        return
    rows = [
        [
            str(image.version),
            image.type.value,
            "" if image.base is None else str(image.base),
            f"{image.size / 1e6:.1f} MB",
            _offer(image),
            image.version_detail,
        ]
        for image in images
    ]
    columns = ["version", "type", "base", "size", "offered to", "made of"]
    print_table(f"Images of {device} in {channel}", columns, rows)


@app.command()
def show(
    channel: ChannelArgument,
    device: DeviceArgument = "generic_amd64",
    revision: Annotated[
        int, typer.Option(help="A version, or 0, -1, -2 … counted from the newest.")
    ] = 0,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show a full image with its files and their checksums.

    Example: coreimage image show debian-core/13/edge generic_amd64 --revision -1
    """
    from coreimage.systemimage.tree import layout

    place = load_space(workspace)
    image = layout.read_index(place, channel, device).full(revision)
    if json:
        print_json(_fields(image))
        return
    print(f"version {image.version}: {image.description}\n{image.version_detail}")
    print(f"offered to: {_offer(image)}\n")
    rows = [
        [str(file.order), file.path, f"{file.size / 1e6:.1f} MB", file.checksum]
        for file in image.files
    ]
    print_table("Files", ["order", "path", "size", "sha256"], rows)


@app.command(name="import")
def import_(
    channel: ChannelArgument,
    device: DeviceArgument = "generic_amd64",
    series: Annotated[
        str | None,
        typer.Option(help="The series to take; by default that of the channel's release."),
    ] = None,
    product: Annotated[
        str | None,
        typer.Option(help="The product part of the files' names; by default the definition's."),
    ] = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Import the newest publication of the channel's project as its next image.

    When nothing has changed since the newest image, there is no new one.

    Example: coreimage image import debian-core/13/edge generic_amd64
    """
    from coreimage.errors import NotFoundError
    from coreimage.pipeline.importing import channel_settings
    from coreimage.systemimage.imports import importer

    place, now = load_space(workspace), datetime.now(UTC)
    if channel not in place.settings.channels:
        known = ", ".join(f"'{name}'" for name in sorted(place.settings.channels))
        raise NotFoundError(
            f"coreimage.toml does not say what channel '{channel}' is fed from",
            hint=f"the channels in it are {known}" if known else f'add [channels."{channel}"]',
        )
    settings = channel_settings(place, channel, series=series, product=product)
    target: importer.Target = {
        "channel": channel,
        "device": device,
        "settings": settings,
        "progress": progress(),
        "now": now,
    }
    if dry_run:
        _tell(importer.plan_import(place, **target), json=json)
        return
    result = importer.import_image(place, **target)
    if json:
        changed = {"changed": result.changed, "publication": result.publication, "dry_run": False}
        print_json({**changed, **_fields(result.image)})
        return
    outcome = "imported as" if result.changed else "unchanged since"
    print(f"'{result.publication}': {outcome} version {result.version}")


def _tell(plan: "ImportPlan", *, json: bool) -> None:
    """Print what an import would do."""
    if json:
        from dataclasses import asdict

        print_json({**asdict(plan), "dry_run": True})
        return
    if not plan.changed:
        print(f"'{plan.publication}': unchanged since version {plan.version}")
        return
    print(f"'{plan.publication}': would be imported as version {plan.version}")
    rows = [
        *([detail, "would be made"] for detail in plan.made),
        *([detail, "is there already"] for detail in plan.reused),
        *([f"delta from {base}", "would be made, if it can be exact"] for base in plan.bases),
    ]
    print_table("Files", ["file", ""], rows)


def _fields(image: "Image") -> dict[str, Any]:
    return {
        "version": image.version,
        "type": image.type.value,
        "base": image.base,
        "size": image.size,
        "description": image.description,
        "translations": dict(image.translations),
        "version_detail": image.version_detail,
        "phased_percentage": image.percentage,
        "minversion": image.minversion,
        "kept_from_old_clients": image.kept_from_old_clients,
        "bootme": image.bootme,
        "withdrawn": image.withdrawn,
        "tags": list(image.tags),
        "files": [
            {
                "order": file.order,
                "path": file.path,
                "signature": file.signature,
                "size": file.size,
                "checksum": file.checksum,
            }
            for file in image.files
        ],
        **image.extra,
    }


def _offer(image: "Image") -> str:
    """Return in a few words who is offered an image."""
    if image.withdrawn is not None:
        return f"nobody: {image.withdrawn}"
    words = [f"{image.percentage} %" if image.phased_percentage is not None else "all"]
    if image.minversion:
        words.append(f"from build {image.minversion}")
    if image.kept_from_old_clients:
        words.append("not to old clients")
    return ", ".join(words)
