"""The command `coreimage channel`: channels and their devices."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from coreimage.cli.console import JsonOption, WorkspaceOption, print_json, print_table
from coreimage.cli.mirror import mirror
from coreimage.cli.space import load_space

app = typer.Typer(help="Create, list and show channels.", no_args_is_help=True)
app.command()(mirror)

NameArgument = Annotated[str, typer.Argument(help="The channel, for example debian-core/13/edge.")]


@app.command()
def create(
    name: NameArgument,
    hidden: Annotated[bool, typer.Option("--hidden", help="Do not list it to people.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Create a channel without devices; importing an image adds the device.

    Example: coreimage channel create debian-core/13/edge
    """
    from coreimage.systemimage import channels

    place, now = load_space(workspace), datetime.now(UTC)
    channels.create_channel(place, name, now=now, hidden=hidden)
    print(f"created channel '{name}'")
    if name not in place.settings.channels:
        typer.echo(
            f"hint: add [channels.\"{name}\"] with 'project' and 'release' to coreimage.toml, "
            "so that images can be imported into it",
            err=True,
        )


@app.command(name="list")
def list_channels(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List all channels with their devices, the hidden ones too.

    Example: coreimage channel list
    """
    from coreimage.systemimage import tree

    place = load_space(workspace)
    found = tree.read_channels(place).channels
    if json:
        print_json(
            [
                {
                    "name": name,
                    "devices": sorted(each.devices),
                    "hidden": each.hidden,
                    "alias": each.alias,
                }
                for name, each in sorted(found.items())
            ]
        )
        return
    rows = [
        [
            name + (f" (alias of {each.alias})" if each.alias else ""),
            ", ".join(sorted(each.devices)) or "-",
            "hidden" if each.hidden else "",
        ]
        for name, each in sorted(found.items())
    ]
    print_table("Channels", ["channel", "devices", ""], rows)


@app.command()
def show(name: NameArgument, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show a channel: its devices, and the newest image of each.

    Example: coreimage channel show debian-core/13/edge
    """
    from coreimage.systemimage import tree

    place = load_space(workspace)
    channel = tree.read_channels(place).require(name)
    newest = {
        device: tree.read_index(place, name, device).newest_full()
        for device in sorted(channel.devices)
    }
    if json:
        print_json(
            {
                "name": name,
                "hidden": channel.hidden,
                "alias": channel.alias,
                "devices": {
                    device: {
                        "index": channel.devices[device].index,
                        "keyring": channel.devices[device].keyring,
                        "version": image.version if image else None,
                    }
                    for device, image in newest.items()
                },
            }
        )
        return
    rows = [
        [
            device,
            str(image.version) if image else "-",
            image.description if image else "",
            channel.devices[device].index,
        ]
        for device, image in newest.items()
    ]
    print_table(f"Channel {name}", ["device", "newest", "description", "index"], rows)
