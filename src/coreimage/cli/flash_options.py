"""The options that flashing, asking a server and verifying a disk have in common."""

from pathlib import Path
from typing import Annotated

import typer

SERVER_VARIABLE = "COREIMAGE_SERVER"
ServerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        "--mirror",
        metavar="URL",
        envvar=SERVER_VARIABLE,
        help="The channel server, a URL or the folder of a channel tree; by default the"
        " workspace's own tree. Repeat it for mirrors: they are asked in this order.",
        show_default=False,
    ),
]
RevisionOption = Annotated[
    int | None,
    typer.Option(
        help="The version, absolute or relative to the newest: -1 is the one before it.",
        show_default=False,
    ),
]
TlsOption = Annotated[
    bool,
    typer.Option(
        "--tls-skip-verify", help="Accept any TLS certificate; signatures decide all the same."
    ),
]
ArchiveMasterOption = Annotated[
    Path | None,
    typer.Option(
        envvar="COREIMAGE_ARCHIVE_MASTER",
        help="The keyring tarball that everything is verified with; by default the workspace's.",
        show_default=False,
    ),
]
UnfreshOption = Annotated[
    bool,
    typer.Option(
        "--allow-unfresh",
        help="Accept a server that does not say how fresh it is, such as an original one: it may"
        " then show old images for ever.",
    ),
]
DownloadOnlyOption = Annotated[
    bool, typer.Option("--download-only", help="Download and verify, make no disk image.")
]
CleanCacheOption = Annotated[
    bool, typer.Option("--clean-cache", help="Remove earlier downloads first.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Say what will be done, too.")]
