"""The command `coreimage channel`: channels, which ones follow others, and their devices."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreimage.cli.console import (
    DryRunOption,
    JsonOption,
    WorkspaceOption,
    print_json,
    print_table,
)
from coreimage.cli.frames import At, changes_channels
from coreimage.cli.mirror import mirror
from coreimage.cli.space import load_space

if TYPE_CHECKING:
    from coreimage.model.channels import Channel

app = typer.Typer(help="Make channels, and say which ones follow others.", no_args_is_help=True)
app.command()(mirror)

NameArgument = Annotated[str, typer.Argument(help="The channel, for example debian-core/13/edge.")]
TargetArgument = Annotated[str, typer.Argument(help="The channel that it is to follow.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="Only this device, for example generic_amd64.")
]


def _now() -> datetime:
    return datetime.now(UTC)


@app.command()
def create(
    name: NameArgument,
    hidden: Annotated[bool, typer.Option("--hidden", help="Do not list it to people.")] = False,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Create a channel without devices; importing an image adds the device.

    Example: coreimage channel create debian-core/13/edge
    """
    from coreimage.systemimage.operations import channels

    place = load_space(workspace)
    channels.create_channel(place, name, now=_now(), hidden=hidden, dry_run=dry_run)
    if json:
        print_json({"changed": [name], "dry_run": dry_run})
    else:
        print(f"{'would create' if dry_run else 'created'} channel '{name}'")
    if name not in place.settings.channels:
        typer.echo(
            f"hint: add [channels.\"{name}\"] with 'project' and 'release' to coreimage.toml, "
            "so that images can be imported into it",
            err=True,
        )


@app.command()
@changes_channels
def remove(
    at: At,
    name: NameArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Remove aliases and redirects of it, too.")
    ] = False,
) -> Sequence[str]:
    """Remove a channel; its files stay for the grace time.

    Refused while other channels follow it, unless --force is given. The numbers of its images are
    not used again, should a channel of this name be made later.

    Example: coreimage channel remove debian-core/13/edge
    """
    from coreimage.systemimage.operations import channels

    return channels.remove_channel(at.workspace, name, now=at.now, force=force, dry_run=at.dry_run)


@app.command()
@changes_channels
def rename(
    at: At,
    old: NameArgument,
    new: Annotated[str, typer.Argument(help="Its new name.")],
    force: Annotated[
        bool, typer.Option("--force", help="Let the channels that follow it follow the new name.")
    ] = False,
    keep_redirect: Annotated[
        bool, typer.Option("--keep-redirect", help="Leave a hidden redirect under the old name.")
    ] = False,
) -> Sequence[str]:
    """Give a channel another name.

    Devices look for the old one: with --keep-redirect they find the images of the new one, and
    move to it with the next update. Refused while other channels follow it, unless --force is
    given; devices of its aliases then take a full image.

    Example: coreimage channel rename debian-core/13/edge debian-core/13/daily --keep-redirect
    """
    from coreimage.systemimage.operations import channels

    return channels.rename_channel(
        at.workspace,
        old,
        new,
        now=at.now,
        force=force,
        keep_redirect=keep_redirect,
        dry_run=at.dry_run,
    )


@app.command()
@changes_channels
def hide(
    at: At,
    name: NameArgument,
) -> Sequence[str]:
    """Do not list a channel to people any more; devices find it all the same.

    Example: coreimage channel hide debian-core/13/edge
    """
    from coreimage.systemimage.operations import channels

    return channels.set_hidden(at.workspace, name, hidden=True, now=at.now, dry_run=at.dry_run)


@app.command()
@changes_channels
def unhide(
    at: At,
    name: NameArgument,
) -> Sequence[str]:
    """List a hidden channel to people again.

    Example: coreimage channel unhide debian-core/13/edge
    """
    from coreimage.systemimage.operations import channels

    return channels.set_hidden(at.workspace, name, hidden=False, now=at.now, dry_run=at.dry_run)


@app.command()
@changes_channels
def alias(
    at: At,
    name: NameArgument,
    target: TargetArgument,
    force: Annotated[
        bool,
        typer.Option("--force", help="Give up its own images, or devices that the target lacks."),
    ] = False,
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="Let devices go back to lower numbers.")
    ] = False,
) -> Sequence[str]:
    """Make a channel, new or old, follow another one with all its devices and images.

    It is there all the time, also while it is changed to another target; devices then take a full
    image. When the target gets an image, the alias has it in the same step.

    Example: coreimage channel alias stable debian-core/13/edge
    """
    from coreimage.systemimage.operations import channels

    return channels.set_alias(
        at.workspace,
        name,
        target,
        now=at.now,
        force=force,
        allow_downgrade=allow_downgrade,
        dry_run=at.dry_run,
    )


@app.command()
@changes_channels
def unalias(
    at: At,
    name: NameArgument,
) -> Sequence[str]:
    """Let an alias keep the images that it has as its own, and follow no other channel.

    Example: coreimage channel unalias stable
    """
    from coreimage.systemimage.operations import channels

    return channels.unset_alias(at.workspace, name, now=at.now, dry_run=at.dry_run)


@app.command()
@changes_channels
def redirect(
    at: At,
    name: NameArgument,
    target: TargetArgument,
    device: DeviceOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Give up the images that it has of its own.")
    ] = False,
) -> Sequence[str]:
    """Send the devices of a channel, new or old, to another channel, or only one device.

    They get the other channel's images as they are, and so move to that channel.

    Example: coreimage channel redirect old-name debian-core/13/edge --device generic_amd64
    """
    from coreimage.systemimage.operations import channels

    return channels.set_redirect(
        at.workspace,
        name,
        target,
        now=at.now,
        device=device,
        force=force,
        dry_run=at.dry_run,
    )


@app.command()
@changes_channels
def unredirect(
    at: At,
    name: NameArgument,
    device: DeviceOption = None,
) -> Sequence[str]:
    """End the redirect of a channel, or of one device; it has no images until the next import.

    Example: coreimage channel unredirect old-name
    """
    from coreimage.systemimage.operations import channels

    return channels.unset_redirect(
        at.workspace, name, now=at.now, device=device, dry_run=at.dry_run
    )


@app.command()
@changes_channels
def keyring(
    at: At,
    name: NameArgument,
    device: Annotated[str, typer.Argument(help="The device, for example generic_amd64.")],
    remove: Annotated[
        bool, typer.Option("--remove", help="Take its keyring away instead.")
    ] = False,
) -> Sequence[str]:
    """Give a device of a channel the device-signing keyring, which then signs its index.

    Old clients go on to trust a keyring that they have once seen, also after --remove.

    Example: coreimage channel keyring debian-core/13/edge generic_amd64
    """
    from coreimage.systemimage.operations import channels

    return channels.set_device_keyring(
        at.workspace, name, device, now=at.now, remove=remove, dry_run=at.dry_run
    )


@app.command()
def refresh(
    force: Annotated[
        bool, typer.Option("--force", help="Also when more than half the time is left.")
    ] = False,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Sign channels.json anew, with a new expiry, when less than half its time is left.

    'coreimage pipeline' does this by itself. The time is tree.expiry_days of coreimage.toml.

    Example: coreimage channel refresh
    """
    from coreimage.systemimage.operations import channels
    from coreimage.systemimage.tree import layout

    place = load_space(workspace)
    refreshed = channels.refresh(place, now=_now(), force=force, dry_run=dry_run)
    expires = layout.read_channels(place).expires
    until = None if expires is None else datetime.fromtimestamp(expires, UTC).isoformat()
    if json:
        print_json({"refreshed": refreshed, "dry_run": dry_run, "expires": until})
        return
    done = "would be signed anew" if dry_run else "was signed anew"
    print(f"channels.json {done if refreshed else 'is fresh'}; it is valid until {until or '?'}")


@app.command(name="list")
def list_channels(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List all channels with their devices, the hidden ones too.

    Example: coreimage channel list
    """
    from coreimage.systemimage.tree import layout

    found = layout.read_channels(load_space(workspace)).channels
    if json:
        print_json([_fields(name, each) for name, each in sorted(found.items())])
        return
    rows = [
        [name, ", ".join(_device_names(each)) or "-", ", ".join(_notes(each))]
        for name, each in sorted(found.items())
    ]
    print_table("Channels", ["channel", "devices", ""], rows)


def _fields(name: str, channel: "Channel") -> dict[str, Any]:
    return {
        "name": name,
        "devices": sorted(channel.devices),
        "hidden": channel.hidden,
        "alias": channel.alias,
        "redirect": channel.redirect,
    }


def _device_names(channel: "Channel") -> list[str]:
    return [
        name if device.redirect is None or channel.redirect else f"{name} (of {device.redirect})"
        for name, device in sorted(channel.devices.items())
    ]


def _notes(channel: "Channel") -> Sequence[str]:
    notes = {
        f"alias of {channel.alias}": channel.alias,
        f"redirect to {channel.redirect}": channel.redirect,
        "hidden": channel.hidden,
    }
    return [note for note, holds in notes.items() if holds]


@app.command()
def show(name: NameArgument, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show a channel: its devices, and the newest image of each.

    Example: coreimage channel show debian-core/13/edge
    """
    from coreimage.systemimage.tree import layout

    place = load_space(workspace)
    channel = layout.read_channels(place).require(name)
    newest = {
        device: layout.read_index(place, name, device).newest_full()
        for device in sorted(channel.devices)
    }
    if json:
        devices = {
            device: {
                "index": channel.devices[device].index,
                "keyring": channel.devices[device].keyring,
                "redirect": channel.devices[device].redirect,
                "version": image.version if image else None,
                "phased_percentage": image.percentage if image else None,
                "withdrawn": image.withdrawn if image else None,
            }
            for device, image in newest.items()
        }
        print_json({**_fields(name, channel), "devices": devices})
        return
    rows = [
        [
            label,
            str(image.version) if image else "-",
            f"{image.percentage} %" if image else "",
            image.description if image else "",
            "own" if channel.devices[device].keyring else "",
            channel.devices[device].index,
        ]
        for label, (device, image) in zip(_device_names(channel), newest.items(), strict=True)
    ]
    title = f"Channel {name}" + "".join(f", {note}" for note in _notes(channel))
    columns = ["device", "newest", "offered to", "description", "keyring", "index"]
    print_table(title, columns, rows)
