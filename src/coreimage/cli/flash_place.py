"""Where images come from and where they are made: the workspace's places, or those given."""

from pathlib import Path
from typing import TYPE_CHECKING

from coreimage.errors import NotFoundError

if TYPE_CHECKING:
    from coreimage.config import Workspace
    from coreimage.flasher.remote.connect import Place
    from coreimage.flasher.remote.server import Server
    from coreimage.lib.progress import Progress


def place_of(
    workspace: Path | None,
    servers: list[str] | None,
    archive_master: Path | None,
    *,
    scratch: Path | None = None,
    verify_tls: bool,
    allow_unfresh: bool = False,
    trusted: bool = True,
) -> "tuple[Workspace | None, Place]":
    """Return the workspace, if one is there, and where images come from.

    `scratch` is where work is done outside of a workspace. Without `trusted` nothing is to be
    verified, and no server is needed. Raises NotFoundError for what is needed and not there.
    """
    from coreimage.flasher.remote.connect import Place
    from coreimage.lib.memory import default_directory

    home = _workspace(workspace, needed=trusted and (not servers or archive_master is None))
    pinned = archive_master or (home.archive_master if home else None)
    if trusted and (pinned is None or not pinned.is_file()):
        raise NotFoundError(
            f"there is no archive-master keyring '{pinned}' to verify anything with",
            hint="name the keyring tarball that you trust with --archive-master FILE",
        )
    cache = home.cache if home else Path.home() / ".cache/coreimage"
    place = Place(
        servers=servers or ([str(home.channel_tree)] if home else []),
        archive_master=pinned or Path("none"),
        cache=cache / "downloads",
        scratch=cache / "flash" if home or scratch is None else scratch,
        verify_tls=verify_tls,
        # Each copy of a workspace has a history of its own.
        memory=home.state / "trust" if home and archive_master is None else default_directory(),
        allow_unfresh=allow_unfresh,
    )
    return home, place


def oem_folders(home: "Workspace | None") -> list[Path]:
    """Return where OEM packages are found by name on this machine."""
    from coreimage.flasher.oem.find import shipped_folder

    return [*([home.root / "oem"] if home else []), shipped_folder()]


def _workspace(explicit: Path | None, *, needed: bool) -> "Workspace | None":
    from coreimage.config import find_root, load_workspace

    try:
        return load_workspace(find_root(Path.cwd(), explicit))
    except NotFoundError as error:
        if explicit is not None:
            raise
        if needed:
            raise NotFoundError(
                "there is no workspace here to take the channel tree and the keys from",
                hint="name both with --server URL and --archive-master FILE, or a workspace with "
                "--workspace DIR",
            ) from error
        return None


def warn_unfresh(server: "Server", report: "Progress") -> None:
    """Say loudly what it means that a server does not say how fresh it is."""
    if server.unfresh:
        report.note(
            f"WARNING: '{server.source.name}' does not say how fresh its channels are. What it "
            "offers is signed, but may be old: known holes may be open in it."
        )


def forget_downloads(place: "Place", report: "Progress") -> None:
    """Remove earlier downloads and say how much that was."""
    from coreimage.flasher.remote.web import clean_cache

    report.note(f"Removed downloads of {clean_cache(place.cache) / 1e6:.2f} MB")
