"""The command `coreimage channel mirror`: a copy of a channel tree, here or elsewhere."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreimage.cli.console import (
    DryRunOption,
    JsonOption,
    WorkspaceOption,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from coreimage.systemimage.mirrors.mirror import MirrorResult


def mirror(
    source: Annotated[str, typer.Argument(help="A server, or the folder of a channel tree.")],
    target: Annotated[Path, typer.Argument(help="The folder of the mirror.")],
    *,
    channel: Annotated[
        list[str] | None, typer.Option(help="Only this channel, or all like 'core/*'. Repeatable.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Only this device. Repeatable.")] = None,
    archive_master: Annotated[
        Path | None,
        typer.Option(help="The origin's keyring; by default that of the workspace."),
    ] = None,
    grace: Annotated[
        int, typer.Option(min=0, help="Days for which files are kept that nothing names any more.")
    ] = 7,
    check: Annotated[
        bool, typer.Option("--check", help="Verify again what is in the mirror already.")
    ] = False,
    allow_unfresh: Annotated[
        bool,
        typer.Option(
            "--allow-unfresh", help="Also mirror a server that does not say how fresh it is."
        ),
    ] = False,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Make a folder show what a channel tree shows: pull from a server, or push to a folder.

    The mirror is valid at every instant, and what it takes is verified first. Run it again to
    bring it up to date.

    Example: coreimage channel mirror https://images.example /srv/mirror --channel 'debian-core/*'
    """
    from coreimage.cli.space import load_space
    from coreimage.errors import NotFoundError
    from coreimage.systemimage.mirrors import mirror as mirrors
    from coreimage.systemimage.mirrors.plan import Wish

    pinned = archive_master or load_space(workspace).archive_master
    if not pinned.is_file():
        raise NotFoundError(
            f"there is no keyring '{pinned}'",
            hint="get the origin's archive-master.tar.xz in a way that you trust, and name it with "
            "--archive-master",
        )
    result = mirrors.mirror(
        source,
        target,
        archive_master=pinned,
        wish=Wish(channels=channel or (), devices=device or ()),
        grace=timedelta(days=grace),
        progress=progress(),
        now=datetime.now(UTC),
        check=check,
        allow_unfresh=allow_unfresh,
        dry_run=dry_run,
    )
    if json:
        print_json(
            {
                "serial": result.serial,
                "changed": result.changed,
                "fetched": result.fetched,
                "fetched_bytes": result.fetched_bytes,
                "removed": result.removed,
                "left_out": [
                    {"channel": channel, "device": device} for channel, device in result.left_out
                ],
                "dry_run": dry_run,
            }
        )
        return
    _tell(target, result, dry_run=dry_run)


def _tell(target: Path, result: "MirrorResult", *, dry_run: bool) -> None:
    state = "now shows" if result.changed else "still shows"
    if dry_run:
        print(
            f"would bring {result.fetched} files, {result.fetched_bytes / 1e6:.1f} MB, to show ",
            end="",
        )
        print(f"state {result.serial} in '{target}'")
        return
    size = result.fetched_bytes / 1e6
    print(
        f"'{target}' {state} state {result.serial}: {result.fetched} files came ({size:.1f} MB), "
        f"{result.removed} went"
    )
    if result.left_out:
        names = ", ".join(f"'{device}' in '{channel}'" for channel, device in result.left_out)
        typer.echo(f"note: channels.json also names what is not here: {names}", err=True)
