"""Flashing from a real signed tree: what is on the disk, and that it is always the same bytes."""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, NotFoundError, TrustError
from coreimage.flasher.flash import fetch_only, flash
from coreimage.flasher.oem.find import shipped_folder
from coreimage.flasher.options import FlashOptions
from coreimage.flasher.plan import FlashPlan, planned
from coreimage.flasher.provision import NO_ACCESS, Access, parse_keys
from coreimage.flasher.remote.connect import Place
from coreimage.flasher.remote.gather import gathered
from coreimage.lib import run
from coreimage.lib.files import sha256_of
from coreimage.lib.progress import Silent, Task
from coreimage.lib.transport import Limits
from tests.integration import channel_tree, liar
from tests.integration.channel_tree import NOW
from tests.support.disks import digest

KEY = parse_keys(
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9nBWPrYPuTd7f8CdXbNLSCEmZ0iC8MpbQZrpM3iF1j me",
    source="me.pub",
)
QUICK = Limits(min_rate=200, window=1, deadline=20, attempts=2, backoff=0.01)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = channel_tree.make_workspace(tmp_path_factory.mktemp("server") / "workspace")
    for version in (1, 2):
        channel_tree.publish(made, version)
    return made


@pytest.fixture
def server(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[liar.Liar]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with liar.serving(workspace.channel_tree) as each:
        yield each


def place(workspace: Workspace, home: Path, *, server: str | None = None) -> Place:
    return Place(
        servers=[server or str(workspace.channel_tree)],
        archive_master=workspace.archive_master,
        cache=home / "cache",
        scratch=home / "scratch",
        limits=QUICK,
    )


def options(
    output: Path, *, revision: int | None = None, access: Access = NO_ACCESS
) -> FlashOptions:
    return FlashOptions(
        release="13",
        channel="edge",
        output=output,
        oem="generic-amd64",
        oem_folders=[shipped_folder()],
        revision=revision,
        access=access,
    )


def make(where: Place, wanted: FlashOptions) -> FlashPlan:
    with planned(wanted, where, progress=Silent(), now=NOW) as job:
        flash(job, progress=Silent())
        return job.plan


def content_of(disk: Path, plan: FlashPlan, partition: str, path: str) -> bytes:
    found = plan.layout.partition(partition)
    if partition == "system-boot":
        return run.run(["mtype", "-i", f"{disk}@@{found.start}", f"::/{path}"]).stdout
    image = f"{disk}?offset={found.start}"
    return run.run(["debugfs", "-R", f"cat /{path}", image]).stdout


def test_the_disk_holds_what_was_asked_for(workspace: Workspace, tmp_path: Path) -> None:
    disk = tmp_path / "x86.img"
    access = Access(ssh=True, keys=KEY, developer_mode=True)
    plan = make(place(workspace, tmp_path), options(disk, access=access))
    assert disk.stat().st_size == 4_000_000_000
    assert plan.image.version == 2
    assert content_of(disk, plan, "system-a", "etc/hostname") == b"core\n"
    # Files are applied by their order: the device tarball comes after the root filesystem.
    assert content_of(disk, plan, "system-a", "etc/replaced") == b"from the device tarball\n"
    assert content_of(disk, plan, "system-a", "etc/ubuntu-build") == b"2\n"
    slot = "EFI/ubuntu/grub/a"
    assert (
        content_of(disk, plan, "system-boot", f"{slot}/vmlinuz")
        == channel_tree.DEVICE_FILES["assets/vmlinuz"]
    )
    assert content_of(disk, plan, "system-boot", f"{slot}/hardware.yaml") == channel_tree.HARDWARE
    assert b'initial-version: "2"\n' in content_of(disk, plan, "system-boot", "install.yaml")
    home = "system-data/var/lib/coreimage/ssh"
    assert content_of(disk, plan, "writable", f"{home}/enabled") == b""
    keys = content_of(disk, plan, "writable", f"{home}/authorized_keys/core")
    assert keys.decode() == f"{KEY[0].line}\n"
    oem = content_of(disk, plan, "writable", "oem/generic-amd64/current/meta/package.yaml")
    assert oem == (shipped_folder() / "generic-amd64/meta/package.yaml").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["scratch", "x86.img"]  # noqa: PTH208
    assert not list((tmp_path / "scratch").iterdir())


def test_the_same_inputs_give_the_same_bytes(
    workspace: Workspace, server: liar.Liar, tmp_path: Path
) -> None:
    """Whichever file comes first: here the later ones do, and only then the first one."""
    later = threading.Semaphore(0)

    def ahead(handler: liar.Handler, content: bytes) -> None:
        liar.honest(handler, content)
        later.release()

    def behind(handler: liar.Handler, content: bytes) -> None:
        assert later.acquire(timeout=15)
        liar.honest(handler, content)

    first, second = tmp_path / "first.img", tmp_path / "elsewhere/second.img"
    second.parent.mkdir()
    plan = make(place(workspace, tmp_path), options(first))
    order = [file.path for file in sorted(plan.image.files, key=lambda file: file.order)]
    server.lies = {order[0]: behind, order[1]: ahead}
    make(place(workspace, tmp_path / "other", server=server.url), options(second))
    assert digest(first) == digest(second)


class Watching(Silent):
    """Progress that notices when unpacking has come so far."""

    def __init__(self) -> None:
        self.unpacked = threading.Event()

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "bytes") -> Iterator[Task]:
        with super().task(title, total, unit=unit) as task:
            yield self if title == "unpacking" else task

    def advance(self, amount: int) -> None:
        if amount:
            self.unpacked.set()


def test_the_first_file_is_unpacked_while_the_next_one_is_on_its_way(
    workspace: Workspace, server: liar.Liar, tmp_path: Path
) -> None:
    progress = Watching()
    where = place(workspace, tmp_path, server=server.url)
    with planned(options(tmp_path / "x.img"), where, progress=progress, now=NOW) as job:
        order = sorted(job.plan.image.files, key=lambda file: file.order)

        def late(handler: liar.Handler, content: bytes) -> None:
            assert progress.unpacked.wait(15)
            liar.honest(handler, content)

        server.lies[order[1].path] = late
        flash(job, progress=progress)
    assert (tmp_path / "x.img").exists()


def test_other_options_give_other_identifiers(workspace: Workspace, tmp_path: Path) -> None:
    plans = []
    for access in (NO_ACCESS, Access(ssh=True, keys=KEY)):
        wanted = options(tmp_path / "x.img", access=access)
        with planned(wanted, place(workspace, tmp_path), progress=Silent(), now=NOW) as job:
            plans.append(job.plan)
    assert plans[0].layout.disk_guid != plans[1].layout.disk_guid


def test_an_existing_output_is_not_touched(workspace: Workspace, tmp_path: Path) -> None:
    disk = tmp_path / "x86.img"
    disk.write_bytes(b"precious")
    with pytest.raises(CoreImageError, match="x86"):
        make(place(workspace, tmp_path), options(disk))
    assert disk.read_bytes() == b"precious"


def test_a_revision_is_absolute_or_relative(workspace: Workspace, tmp_path: Path) -> None:
    where = place(workspace, tmp_path)
    for revision, version in ((None, 2), (1, 1), (-1, 1), (0, 2)):
        wanted = options(tmp_path / "x.img", revision=revision)
        with planned(wanted, where, progress=Silent(), now=NOW) as job:
            assert job.plan.image.version == version
    with pytest.raises(NotFoundError) as raised:
        make(where, options(tmp_path / "x.img", revision=9))
    assert "1, 2" in raised.value.hint


def test_downloads_are_kept_and_checked_again(
    workspace: Workspace, server: liar.Liar, tmp_path: Path
) -> None:
    where = place(workspace, tmp_path, server=server.url)
    wanted = options(tmp_path / "x.img")

    def download() -> list[str]:
        server.requests.clear()
        with planned(wanted, where, progress=Silent(), now=NOW) as job:
            fetch_only(job, progress=Silent())
        return [
            path for path, _ in server.requests if path.endswith(".tar.xz") and "gpg" not in path
        ]

    assert len(download()) == 3
    assert download() == []
    rotten = next(path for path in (tmp_path / "cache").iterdir())
    rotten.write_bytes(b"rotten")
    assert len(download()) == 1
    assert not (tmp_path / "x.img").exists()


def attempt(workspace: Workspace, home: Path, server: liar.Liar) -> None:
    make(place(workspace, home, server=server.url), options(home / "x86.img"))


def see_that_nothing_is_left(home: Path) -> None:
    assert not (home / "x86.img").exists()
    assert not list((home / "scratch").iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "/channels.json",
        "/gpg/image-master.tar.xz",
        "/gpg/image-signing.tar.xz",
        "/gpg/blacklist.tar.xz",
    ],
)
@pytest.mark.parametrize("lie", ["flipped", "unsigned", "missing", "foreign", "swapped"])
def test_metadata_that_was_tampered_with_is_refused(
    workspace: Workspace, server: liar.Liar, tmp_path: Path, name: str, lie: str, foreign: Path
) -> None:
    tell(server, name, lie, foreign)
    with pytest.raises((TrustError, NotFoundError)) as raised:
        attempt(workspace, tmp_path, server)
    if lie != "missing" or name != "/channels.json":
        assert type(raised.value) is TrustError
    see_that_nothing_is_left(tmp_path)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of somebody else, with the same names and other keys."""
    made = channel_tree.make_workspace(tmp_path_factory.mktemp("thief") / "workspace")
    for version in (1, 2):
        channel_tree.publish(made, version)
    return made.channel_tree


def tell(server: liar.Liar, path: str, lie: str, foreign: Path) -> None:
    def nothing(handler: liar.Handler, content: bytes) -> None:
        del content
        handler.send_error(404)

    def from_file(file: Path) -> liar.Behaviour:
        return lambda handler, content: liar.honest(handler, (content[:0] + file.read_bytes()))

    if lie == "flipped":
        server.lies[path] = liar.flipped
    elif lie == "unsigned":
        server.lies[f"{path}.asc"] = nothing
    elif lie == "missing":
        server.lies[path] = server.lies[f"{path}.asc"] = nothing
    elif lie == "foreign":
        for name in (path, f"{path}.asc"):
            server.lies[name] = from_file(foreign / name.lstrip("/"))
    else:
        server.lies[f"{path}.asc"] = from_file(foreign / f"{path.lstrip('/')}.asc")


@pytest.mark.parametrize("lie", ["flipped", "unsigned", "missing", "swapped"])
def test_an_index_that_was_tampered_with_is_refused(
    workspace: Workspace, server: liar.Liar, tmp_path: Path, lie: str, foreign: Path
) -> None:
    found = index_path(workspace)
    tell(server, found, lie, foreign)
    if lie == "swapped":
        other = next((workspace.channel_tree / "pool").glob("*.asc"))
        server.lies[f"{found}.asc"] = lambda handler, content: liar.honest(
            handler, content[:0] + other.read_bytes()
        )
    with pytest.raises((TrustError, NotFoundError)):
        attempt(workspace, tmp_path, server)
    see_that_nothing_is_left(tmp_path)


def index_path(workspace: Workspace) -> str:
    folder = workspace.channel_tree / channel_tree.CHANNEL / channel_tree.DEVICE
    newest = max(folder.glob("index-*.json"), key=lambda path: path.stat().st_mtime_ns)
    return "/" + newest.relative_to(workspace.channel_tree).as_posix()


def test_a_flipped_byte_in_payload_names_file_and_digests(
    workspace: Workspace, server: liar.Liar, tmp_path: Path
) -> None:
    payload = next((workspace.channel_tree / "pool").glob("device-*.tar.xz"))
    server.lies[f"/pool/{payload.name}"] = liar.flipped
    with pytest.raises(TrustError) as raised:
        attempt(workspace, tmp_path, server)
    assert payload.name in raised.value.message
    assert sha256_of(payload) in raised.value.message
    assert raised.value.message.count("expected") == 1
    see_that_nothing_is_left(tmp_path)


def test_payload_without_a_signature_is_refused(
    workspace: Workspace, server: liar.Liar, tmp_path: Path, foreign: Path
) -> None:
    payload = next((workspace.channel_tree / "pool").glob("device-*.tar.xz"))
    tell(server, f"/pool/{payload.name}", "unsigned", foreign)
    with pytest.raises(TrustError, match="no signature"):
        attempt(workspace, tmp_path, server)
    see_that_nothing_is_left(tmp_path)


def test_payload_signed_by_a_stranger_is_refused(
    workspace: Workspace, server: liar.Liar, tmp_path: Path, foreign: Path
) -> None:
    payload = next((workspace.channel_tree / "pool").glob("device-*.tar.xz"))
    tell(server, f"/pool/{payload.name}", "swapped", foreign)
    with pytest.raises(TrustError, match=payload.name):
        attempt(workspace, tmp_path, server)
    see_that_nothing_is_left(tmp_path)


def test_the_keys_of_another_server_are_refused(
    workspace: Workspace, tmp_path: Path, foreign: Path
) -> None:
    with pytest.raises(TrustError, match="image-master"):
        make(
            place(workspace, tmp_path, server=str(foreign)),
            options(tmp_path / "x86.img"),
        )
    see_that_nothing_is_left(tmp_path)


def test_a_file_exchanged_after_its_verification_is_not_what_is_read(
    workspace: Workspace, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(workspace.channel_tree, tree, symlinks=True)
    where = place(workspace, tmp_path, server=str(tree))
    wanted = options(tmp_path / "x.img")
    with planned(wanted, where, progress=Silent(), now=NOW) as job:
        assert job.server is not None
        with gathered(job.server.source, job.plan.image, job.server.chain, Silent()) as found:
            for payload in list(found):
                evil = tmp_path / "evil"
                evil.write_bytes(b"evil")
                evil.replace(tree / payload.entry.path.lstrip("/"))
                content = payload.file.read()
                assert hashlib.sha256(content).hexdigest() == payload.entry.checksum


def test_a_tree_that_is_published_to_meanwhile_is_read_as_one(
    workspace: Workspace, server: liar.Liar, tmp_path: Path
) -> None:
    """channels.json and its signature may come from two states: then both are asked for again."""
    state = workspace.channel_tree / "state"
    older = state.parent / f"states/{int(state.readlink().name) - 1}/channels.json.asc"

    def old_signature(handler: liar.Handler, content: bytes) -> None:
        liar.honest(handler, content[:0] + older.read_bytes())

    server.lies["/channels.json.asc"] = liar.first(1, old_signature)
    wanted = options(tmp_path / "x.img")
    where = place(workspace, tmp_path, server=server.url)
    with planned(wanted, where, progress=Silent(), now=NOW) as job:
        assert job.plan.image.version == 2
    server.lies["/channels.json.asc"] = old_signature
    with pytest.raises(TrustError, match=r"channels\.json"):
        attempt(workspace, tmp_path, server)
