"""coreimage flash query: what a server has."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from coreimage.cli import flash_options as options
from coreimage.cli.console import JsonOption, WorkspaceOption, print_json, progress
from coreimage.cli.flash_place import place_of, warn_unfresh
from coreimage.errors import UsageError


def query(
    *,
    list_channels: Annotated[
        bool, typer.Option("--list-channels", help="List the channels of a device.")
    ] = False,
    list_images: Annotated[
        bool, typer.Option("--list-images", help="List the images of a channel.")
    ] = False,
    show_image: Annotated[
        bool, typer.Option("--show-image", help="Show an image of a channel.")
    ] = False,
    channel: Annotated[
        str | None, typer.Option(help="The full name of a channel.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="The device.")] = "generic_amd64",
    revision: options.RevisionOption = None,
    server: options.ServerOption = None,
    tls_skip_verify: options.TlsOption = False,
    allow_unfresh: options.UnfreshOption = False,
    archive_master: options.ArchiveMasterOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a server what it has.

    Example: coreimage flash query --list-images --channel debian-core/13/edge
    """
    from coreimage.flasher import query as questions
    from coreimage.flasher.remote.connect import connected

    if [list_channels, list_images, show_image].count(True) != 1:
        raise UsageError("ask for one of --list-channels, --list-images and --show-image")
    if channel is None and not list_channels:
        raise UsageError("this needs a channel", hint="name one with --channel NAME")
    _, place = place_of(
        workspace,
        server,
        archive_master,
        verify_tls=not tls_skip_verify,
        allow_unfresh=allow_unfresh,
    )
    with connected(place, now=datetime.now(UTC)) as (found, _):
        warn_unfresh(found, progress())
        if list_channels:
            answer = questions.list_channels(found.channels, device)
        elif list_images:
            answer = questions.list_images(found.index(str(channel), device))
        else:
            answer = questions.show_image(found.index(str(channel), device).full(revision))
    if as_json:
        print_json(answer.fields)
    else:
        print("\n".join(answer.lines))
