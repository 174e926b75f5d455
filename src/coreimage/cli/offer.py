"""More of `coreimage image`: how images are offered, promotion, expiry, and keeping house."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from coreimage.cli import image
from coreimage.cli.console import (
    DryRunOption,
    JsonOption,
    WorkspaceOption,
    print_json,
    print_table,
    progress,
)
from coreimage.cli.frames import At, changes_channels
from coreimage.cli.image import ChannelArgument, DeviceArgument
from coreimage.cli.space import load_space

if TYPE_CHECKING:
    from coreimage.systemimage.operations.offers import Where

app = image.app

VersionArgument = Annotated[int, typer.Argument(help="The version, for example 7.")]
PercentageOption = Annotated[
    int | None,
    typer.Option(
        "--percentage", min=0, max=100, help="The share of devices it is offered to first."
    ),
]


def _now() -> datetime:
    return datetime.now(UTC)


def _where(at: At, channel: str, device: str) -> "Where":
    from coreimage.systemimage.operations.offers import Where

    return Where(workspace=at.workspace, channel=channel, device=device, dry_run=at.dry_run)


@app.command()
def copy(
    source: ChannelArgument,
    target: Annotated[str, typer.Argument(help="The channel that gets it, which must exist.")],
    device: DeviceArgument = "generic_amd64",
    revision: Annotated[
        int, typer.Option(help="A version, or 0, -1, -2 … counted from the newest.")
    ] = 0,
    keep_version: Annotated[
        bool, typer.Option("--keep-version", help="Give the copy the same number.")
    ] = False,
    offset: Annotated[int | None, typer.Option(help="Give the copy its number plus this.")] = None,
    percentage: PercentageOption = None,
    minversion: Annotated[
        int | None, typer.Option(help="Offer it to builds of the target from this on; 0 is all.")
    ] = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Promote an image: publish it in another channel, with the same payload.

    By default the target goes on with its own numbers. When its newest image has this payload
    already, nothing is done.

    Example: coreimage image copy debian-core/13/edge debian-core/13/stable --percentage 10
    """
    from coreimage.systemimage.operations import promote

    copied = promote.copy_image(
        load_space(workspace),
        source=source,
        target=target,
        device=device,
        revision=revision,
        numbering=promote.Numbering(keep=keep_version, offset=offset),
        percentage=percentage,
        minversion=minversion,
        progress=progress(),
        now=_now(),
        dry_run=dry_run,
    )
    if json:
        print_json(
            {
                "version": copied.version,
                "changed": copied.changed,
                "deltas": [image.base for image in copied.images[1:]],
                "dry_run": dry_run,
            }
        )
        return
    done = ("would be" if dry_run else "is now") if copied.changed else "was already"
    print(f"'{target}': it {done} version {copied.version}")


@app.command()
@changes_channels
def phase(
    at: At,
    channel: ChannelArgument,
    device: DeviceArgument,
    version: VersionArgument,
    percentage: Annotated[
        int, typer.Argument(min=0, max=100, help="The share of devices it is offered to.")
    ],
) -> Sequence[str]:
    """Offer the newest image to a share of the devices.

    A device that was offered it at 10 % is offered it at 20 %, too.

    Example: coreimage image phase debian-core/13/stable generic_amd64 7 20
    """
    from coreimage.systemimage.operations import offers

    where = _where(at, channel, device)
    return offers.set_percentage(where, version, percentage, now=at.now)


@app.command()
@changes_channels
def withdraw(
    at: At,
    channel: ChannelArgument,
    device: DeviceArgument,
    version: VersionArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; people read it in the index.")],
) -> Sequence[str]:
    """Offer an image to nobody any more. Devices that have it keep it.

    Example: coreimage image withdraw debian-core/13/stable generic_amd64 7 --reason "no network"
    """
    from coreimage.systemimage.operations import offers

    where = _where(at, channel, device)
    return offers.withdraw(where, version, reason, now=at.now)


@app.command()
@changes_channels
def restore(
    at: At,
    channel: ChannelArgument,
    device: DeviceArgument,
    version: VersionArgument,
    percentage: Annotated[
        int, typer.Option(min=0, max=100, help="The share of devices it is offered to.")
    ] = 100,
) -> Sequence[str]:
    """Offer a withdrawn image again.

    Example: coreimage image restore debian-core/13/stable generic_amd64 7 --percentage 5
    """
    from coreimage.systemimage.operations import offers

    where = _where(at, channel, device)
    return offers.restore(where, version, now=at.now, percentage=percentage)


@app.command()
@changes_channels
def tag(
    at: At,
    channel: ChannelArgument,
    device: DeviceArgument,
    version: VersionArgument,
    name: Annotated[str, typer.Argument(help="The tag, for example OTA-8.5.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take it away instead.")] = False,
) -> Sequence[str]:
    """Give an image a name; another version of the device that has it loses it.

    Example: coreimage image tag debian-core/13/stable generic_amd64 7 OTA-8.5
    """
    from coreimage.systemimage.operations import offers

    where = _where(at, channel, device)
    change = offers.untag if remove else offers.tag
    return change(where, version, name, now=at.now)


@app.command()
@changes_channels
def describe(
    at: At,
    channel: ChannelArgument,
    device: DeviceArgument,
    version: VersionArgument,
    description: Annotated[str | None, typer.Option(help="The description for people.")] = None,
    translation: Annotated[
        list[str] | None,
        typer.Option(metavar="LANG=TEXT", help="A description in a language; may be repeated."),
    ] = None,
    minversion: Annotated[
        int | None, typer.Option(help="Offer it to builds from this on; 0 is all.")
    ] = None,
    bootme: Annotated[
        bool | None,
        typer.Option("--bootme/--no-bootme", help="Reboot after it before any further image."),
    ] = None,
) -> Sequence[str]:
    """Change what people and clients are told about an image.

    Example: coreimage image describe debian-core/13/stable generic_amd64 7 --translation de=neu
    """
    from coreimage.systemimage.operations import offers

    words = offers.Words(
        description=description,
        translations=offers.parse_translations(translation or []),
        minversion=minversion,
        bootme=bootme,
    )
    where = _where(at, channel, device)
    return offers.describe(where, version, words, now=at.now)


@app.command()
def expire(
    channel: ChannelArgument,
    keep: Annotated[
        int | None,
        typer.Option("--keep", help="How many full images stay; by default the 'fullcount'."),
    ] = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Keep only the newest full images of each device of a channel.

    An import or a copy does so by itself when coreimage.toml has a 'fullcount'. Withdrawn images
    are not counted. Deltas to images that go, go with them.

    Example: coreimage image expire debian-core/13/edge --keep 10
    """
    from coreimage.systemimage.operations import expiry

    place = load_space(workspace)
    settings = place.settings.channels.get(channel)
    count = keep if keep is not None else settings.fullcount if settings else 0
    gone = expiry.expire_images(place, channel, count, now=_now(), dry_run=dry_run)
    if json:
        print_json({"expired": gone, "dry_run": dry_run})
        return
    rows = [[device, ", ".join(map(str, versions))] for device, versions in gone.items()]
    print_table("Would expire" if dry_run else "Expired", ["device", "versions"], rows)


@app.command()
def resign(
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Sign everything that the channels name with the present keys, after these were changed.

    The published keyrings must hold the old keys and the new ones. What the present keys have
    signed is left alone; run it again when it was interrupted.

    Example: coreimage image resign --dry-run
    """
    from coreimage.systemimage.keys.resign import resign_all

    signed = resign_all(load_space(workspace), now=_now(), progress=progress(), dry_run=dry_run)
    if json:
        print_json({"signed": signed, "dry_run": dry_run})
        return
    print(f"{'would sign' if dry_run else 'signed'} {len(signed)} files, and channels.json")


@app.command()
def gc(
    grace: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="In place of tree.grace_days of coreimage.toml."),
    ] = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Remove states, indexes and files that no state of the grace time names.

    'coreimage pipeline' does this by itself.

    Example: coreimage image gc --dry-run
    """
    from coreimage.systemimage.tree import orphans

    found = orphans.collect(
        load_space(workspace),
        now=_now(),
        grace=None if grace is None else timedelta(days=grace),
        dry_run=dry_run,
    )
    if json:
        paths = [str(path) for path in found.files]
        print_json({"states": found.states, "files": paths, "size": found.size, "dry_run": dry_run})
        return
    if dry_run:
        for path in found.files:
            print(path)
    done = "would remove" if dry_run else "removed"
    size = f"{found.size / 1e6:.1f} MB"
    print(f"{done} {len(found.states)} states and {len(found.files)} files, {size}")


@app.command()
def missing(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also compare digests and verify signatures.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Report what the channels name and the tree lacks: files, signatures, keyrings.

    Exit code 0 when everything is there, 1 when something is missing or damaged.

    Example: coreimage image missing --deep
    """
    from coreimage.systemimage.tree import inventory

    found = inventory.find_missing(
        load_space(workspace), now=_now(), deep=deep, progress=progress()
    )
    if json:
        fields = [
            {"path": each.path, "problem": each.problem, "named_by": each.named_by}
            for each in found
        ]
        print_json(fields)
    elif found:
        rows = [[each.path, each.problem, each.named_by] for each in found]
        print_table("Missing or damaged", ["path", "problem", "named by"], rows)
    else:
        print("everything is there")
    if found:
        raise typer.Exit(1)
