"""coreimage flash: from a channel to a bootable disk image."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
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
from coreimage.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from coreimage.config import Workspace
    from coreimage.flasher.flash import FlashJob, Place
    from coreimage.flasher.own.machine import Own
    from coreimage.flasher.provision import Access
    from coreimage.flasher.server import Server
    from coreimage.lib.progress import Progress


class ImageFormat(StrEnum):
    """What --format takes; the names are those of flasher.media.formats."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHDX = "vhdx"


app = typer.Typer(help="Make bootable disk images from channels.", no_args_is_help=True)

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


@app.command()
def core(
    release: Annotated[
        str | None,
        typer.Argument(help="The release, such as 13 or 24.04.", show_default=False),
    ] = None,
    *,
    channel: Annotated[
        str, typer.Option(help="The channel; with slashes, its full name.")
    ] = "stable",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The disk image to make; by default core-RELEASE-CHANNEL.img.",
            show_default=False,
        ),
    ] = None,
    oem: Annotated[
        str,
        typer.Option(
            help="The OEM package: a name, NAME=VERSION of a store, or the path of a folder or"
            " archive."
        ),
    ] = "generic-amd64",
    store: Annotated[
        str | None,
        typer.Option(
            help="The id of the store that the OEM package comes from; by default it is looked for"
            " in the workspace, among the shipped ones and in the server's default store.",
            show_default=False,
        ),
    ] = None,
    rootfs: Annotated[
        str | None,
        typer.Option(
            help="A root file system of this machine in place of a channel's image: a tarball, a"
            " folder, the id of a build, or a publication such as debian-core/trixie/20261123.",
            show_default=False,
        ),
    ] = None,
    device_part: Annotated[
        str | None,
        typer.Option(
            help="A device tarball of this machine, or the id of a build to take it from.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            "-s",
            help="Size of the disk in GB. [default: 4; with --write that of the card]",
            min=4,
            show_default=False,
        ),
    ] = None,
    image_format: Annotated[
        ImageFormat | None,
        typer.Option(
            "--format",
            help="The format of the disk image; by default what its suffix says, else raw. A raw"
            " image whose name ends in .zst or .xz is compressed.",
            show_default=False,
        ),
    ] = None,
    bmap: Annotated[
        bool,
        typer.Option("--bmap", "--sparse", help="Write a block map for bmaptool beside the image."),
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Write a card, such as /dev/sdX, in place of a file, and read it back.",
            show_default=False,
        ),
    ] = None,
    yes_i_know: Annotated[
        bool,
        typer.Option("--yes-i-know", help="Write over a device that is fixed or mounted, too."),
    ] = False,
    enable_ssh: Annotated[bool, typer.Option("--enable-ssh", help="Start the SSH server.")] = False,
    ssh_key: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A public key file that may log in by SSH, as 'core' or as --user; repeatable.",
            show_default=False,
        ),
    ] = None,
    user: Annotated[
        str, typer.Option(help="Whose the keys are: the image's user, or one more of that name.")
    ] = "core",
    hostname: Annotated[
        str | None, typer.Option(help="The name of the machine.", show_default=False)
    ] = None,
    network: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="How it reaches networks: a file of systemd-networkd, NAME.network, or of"
            " netplan, NAME.yaml; repeatable.",
            show_default=False,
        ),
    ] = None,
    credential: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A systemd credential for its services, readable by root alone; repeatable.",
            show_default=False,
        ),
    ] = None,
    cloud_init: Annotated[
        Path | None,
        typer.Option(
            metavar="USER_DATA",
            help="User data for cloud-init, if the image has that.",
            show_default=False,
        ),
    ] = None,
    install: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PACKAGE",
            help="A package for the machine: the path of a folder with meta/package.yaml, or of a"
            " tar of it; repeatable.",
            show_default=False,
        ),
    ] = None,
    developer_mode: Annotated[
        bool,
        typer.Option(
            "--developer-mode",
            help="Enable SSH; without --ssh-key, make a key pair beside the image.",
        ),
    ] = False,
    revision: RevisionOption = None,
    server: ServerOption = None,
    download_only: DownloadOnlyOption = False,
    clean_cache: CleanCacheOption = False,
    tls_skip_verify: TlsOption = False,
    allow_unfresh: UnfreshOption = False,
    archive_master: ArchiveMasterOption = None,
    workspace: WorkspaceOption = None,
    verbose: VerboseOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a disk image of a release of core.

    With --rootfs a local build is flashed without any server.

    Example: coreimage flash core 13 --channel edge --output x86.img
    """
    from coreimage.flasher import summary
    from coreimage.flasher.flash import FlashOptions, Medium, planned
    from coreimage.flasher.local import LocalWish
    from coreimage.flasher.media.formats import Format, form_of

    report = progress()
    if release is None and rootfs is None:
        raise UsageError(
            "this needs a release, or a root file system of this machine",
            hint="give a release such as 13, or --rootfs",
        )
    remote = rootfs is None and (not server or archive_master is None)
    home = _workspace(workspace, needed=remote)
    if write is not None and (output or image_format or bmap):
        raise UsageError("--write makes no file", hint="leave out --output, --format and --bmap")
    target = output or _default_output(release, channel, image_format)
    place = _place(
        home,
        server,
        archive_master,
        scratch=target.parent,
        verify_tls=not tls_skip_verify,
        allow_unfresh=allow_unfresh,
        trusted=rootfs is None,
    )
    if clean_cache:
        _clean_cache(place, report)
    making = not (dry_run or download_only)
    with ExitStack() as stack:
        access, private_key = stack.enter_context(
            _access(
                ssh_key or [],
                enable_ssh,
                developer_mode,
                target if making else None,
                place,
                user,
            )
        )
        options = FlashOptions(
            release=release or "",
            channel=channel,
            output=target,
            oem=oem,
            store=store,
            oem_folders=oem_folders(home),
            size=size,
            revision=revision,
            access=access,
            download_only=download_only,
            install=install or [],
            own=_own(hostname, network or [], credential or [], cloud_init),
            medium=Medium(
                form=form_of(target, Format(image_format) if image_format else None),
                bmap=bmap,
                card=write,
                accepted=yes_i_know,
            ),
            local=LocalWish(
                rootfs=rootfs,
                device_part=device_part,
                builds=home.builds if home else None,
                publications=home.publications if home else None,
            ),
        )
        job = stack.enter_context(planned(options, place, progress=report, now=datetime.now(UTC)))
        if job.server is not None:
            _warn_unfresh(job.server, report)
        if verbose and not dry_run:
            for line in summary.plan_lines(job.plan):
                report.note(line)
        lines = _carry_out(
            job, report, dry_run=dry_run, download_only=download_only, private_key=private_key
        )
    if as_json:
        print_json(summary.plan_fields(job.plan))
    else:
        print("\n".join(lines))


def _default_output(release: str | None, channel: str, form: ImageFormat | None) -> Path:
    last = channel.rpartition("/")[2]
    suffix = "img" if form in (None, ImageFormat.RAW) else form
    return Path(f"core-{release or 'local'}-{last}.{suffix}".replace("/", "-"))


def _carry_out(
    job: "FlashJob",
    report: "Progress",
    *,
    dry_run: bool,
    download_only: bool,
    private_key: Path | None,
) -> Sequence[str]:
    """Do what was planned and return what to say about it."""
    from coreimage.flasher import summary
    from coreimage.flasher.flash import fetch_only, flash

    if dry_run:
        return summary.plan_lines(job.plan)
    if download_only:
        size = fetch_only(job, progress=report)
        return [f"Verified {len(job.plan.image.files)} files, {size / 1e6:.2f} MB"]
    if job.plan.access.nobody and not job.plan.own.user_data:
        report.note("nobody will be able to log in: give a key with --ssh-key FILE.pub")
    flash(job, progress=report)
    return summary.summary_lines(
        job.plan, program=summary.launcher(job.plan), private_key=private_key
    )


@app.command()
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
    revision: RevisionOption = None,
    server: ServerOption = None,
    tls_skip_verify: TlsOption = False,
    allow_unfresh: UnfreshOption = False,
    archive_master: ArchiveMasterOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a server what it has.

    Example: coreimage flash query --list-images --channel debian-core/13/edge
    """
    from coreimage.flasher import query as questions
    from coreimage.flasher.flash import connected

    if [list_channels, list_images, show_image].count(True) != 1:
        raise UsageError("ask for one of --list-channels, --list-images and --show-image")
    if channel is None and not list_channels:
        raise UsageError("this needs a channel", hint="name one with --channel NAME")
    home = _workspace(workspace, needed=not server or archive_master is None)
    place = _place(
        home,
        server,
        archive_master,
        scratch=None,
        verify_tls=not tls_skip_verify,
        allow_unfresh=allow_unfresh,
    )
    with connected(place, now=datetime.now(UTC)) as (found, _):
        _warn_unfresh(found, progress())
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


def place_of(
    workspace: Path | None,
    servers: list[str] | None,
    archive_master: Path | None,
    *,
    scratch: Path,
    verify_tls: bool,
) -> "tuple[Workspace | None, Place]":
    """Return the workspace, if one is there, and where images come from."""
    home = _workspace(workspace, needed=not servers or archive_master is None)
    place = _place(
        home, servers, archive_master, scratch=scratch, verify_tls=verify_tls, allow_unfresh=False
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


def _place(
    home: "Workspace | None",
    servers: list[str] | None,
    archive_master: Path | None,
    *,
    scratch: Path | None,
    verify_tls: bool,
    allow_unfresh: bool,
    trusted: bool = True,
) -> "Place":
    from coreimage.flasher.flash import Place
    from coreimage.lib.memory import default_directory

    pinned = archive_master or (home.archive_master if home else None)
    if trusted and (pinned is None or not pinned.is_file()):
        raise NotFoundError(
            f"there is no archive-master keyring '{pinned}' to verify anything with",
            hint="name the keyring tarball that you trust with --archive-master FILE",
        )
    cache = home.cache if home else Path.home() / ".cache/coreimage"
    return Place(
        servers=servers or ([str(home.channel_tree)] if home else []),
        archive_master=pinned or Path("none"),
        cache=cache / "downloads",
        scratch=cache / "flash" if home or scratch is None else scratch,
        verify_tls=verify_tls,
        # Each copy of a workspace has a history of its own.
        memory=home.state / "trust" if home and archive_master is None else default_directory(),
        allow_unfresh=allow_unfresh,
    )


def _warn_unfresh(server: "Server", report: "Progress") -> None:
    if server.unfresh:
        report.note(
            f"WARNING: '{server.source.name}' does not say how fresh its channels are. What it "
            "offers is signed, but may be old: known holes may be open in it."
        )


def _clean_cache(place: "Place", report: "Progress") -> None:
    from coreimage.flasher.download import clean_cache

    report.note(f"Removed downloads of {clean_cache(place.cache) / 1e6:.2f} MB")


def _own(
    hostname: str | None, networks: list[Path], credentials: list[str], cloud_init: Path | None
) -> "Own":
    from coreimage.flasher.own.cloudinit import read_user_data
    from coreimage.flasher.own.machine import Own, check_hostname, read_credential
    from coreimage.flasher.own.network import read_network

    return Own(
        hostname=check_hostname(hostname) if hostname is not None else "",
        networks=[each for path in networks for each in read_network(path)],
        credentials=dict(read_credential(spec) for spec in credentials),
        user_data=read_user_data(cloud_init) if cloud_init is not None else "",
    )


@contextmanager
def _access(
    key_files: list[Path],
    enable_ssh: bool,
    developer_mode: bool,
    target: Path | None,
    place: "Place",
    user: str,
) -> Iterator[tuple["Access", Path | None]]:
    """Yield who may log in, and the private key that will lie beside `target` if one is made."""
    from coreimage.flasher.disk.assemble import check_output
    from coreimage.flasher.provision import (
        Access,
        check_user,
        fresh_key_pair,
        key_pair_paths,
        read_keys,
    )

    keys = [key for path in key_files for key in read_keys(path)]
    private_key = None
    with ExitStack() as stack:
        if developer_mode and not keys and target is not None:
            check_output(target)
            private_key = key_pair_paths(target)[0]
            keys = [stack.enter_context(fresh_key_pair(target, scratch=place.scratch, user=user))]
        access = Access(
            ssh=enable_ssh or developer_mode or bool(keys),
            keys=keys,
            developer_mode=developer_mode,
            user=check_user(user),
        )
        yield access, private_key
