"""Stores of OEM packages: published by the command line, found by name, verified by the flasher."""

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, NotFoundError, TrustError
from coreimage.flasher.oem.archive import write_archive
from coreimage.flasher.oem.package import OemPackage, load_oem
from coreimage.flasher.options import FlashOptions
from coreimage.flasher.plan import planned
from coreimage.flasher.remote.connect import Place
from coreimage.lib import run
from coreimage.lib.progress import Silent
from coreimage.systemimage import store, upkeep
from tests.integration import channel_tree, liar
from tests.integration.channel_tree import NOW

YAML = """\
name: {name}
version: "{version}"
description: for the factory
oem:
  hardware: {{bootloader: grub, architecture: amd64}}
"""


def board(folder: Path, *, name: str = "board", version: str = "1.0", text: str = "") -> Path:
    (folder / name / "meta").mkdir(parents=True, exist_ok=True)
    content = YAML.format(name=name, version=version) + text
    (folder / name / "meta/package.yaml").write_text(content)
    return folder / name


def publish(
    workspace: Workspace, where: str, folder: Path, scratch: Path, *, early: timedelta = timedelta()
) -> bool:
    package = load_oem(folder)
    file = scratch / f"{package.info.version}-{package.digest}.tar.xz"
    write_archive(package, file)
    archive = store.Archive(
        file=file, name=package.info.name, version=package.info.version, architecture="amd64"
    )
    return store.publish(workspace, where, archive, now=NOW - early)[1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    home = tmp_path_factory.mktemp("server")
    made = channel_tree.make_workspace(home / "workspace")
    channel_tree.publish(made, 1)
    for where, version in (("default", "1.0"), ("default", "1.1"), ("factory", "7")):
        assert publish(made, where, board(home, version=version), home)
    return made


@pytest.fixture
def server(shared: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[liar.Liar]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with liar.serving(shared.channel_tree) as each:
        yield each


def found(
    shared: Workspace,
    home: Path,
    name: str,
    *,
    url: str = "",
    where: str | None = None,
    late: timedelta = timedelta(),
) -> OemPackage:
    options = FlashOptions(
        release="13",
        channel="edge",
        output=home / "x.img",
        oem=name,
        oem_folders=[home / "oem"],
        store=where,
    )
    place = Place(
        servers=[url or str(shared.channel_tree)],
        archive_master=shared.archive_master,
        cache=home / "cache",
        scratch=home / "scratch",
    )
    with planned(options, place, progress=Silent(), now=NOW + late) as job:
        return job.plan.oem


@pytest.mark.parametrize("http", [False, True])
def test_names_are_found_in_stores(
    shared: Workspace, server: liar.Liar, tmp_path: Path, *, http: bool
) -> None:
    url = server.url if http else ""
    assert found(shared, tmp_path, "board", url=url).info.version == "1.1"
    assert found(shared, tmp_path, "board=1.0", url=url).info.version == "1.0"
    assert found(shared, tmp_path, "board", url=url, where="factory").info.version == "7"
    board(tmp_path / "oem", version="own")
    assert found(shared, tmp_path, "board", url=url).info.version == "own"
    assert found(shared, tmp_path, "board", url=url, where="default").info.version == "1.1"
    with pytest.raises(NotFoundError, match="'bord'") as raised:
        found(shared, tmp_path, "bord", url=url, where="factory")
    assert raised.value.hint == "the OEM packages are 'board'"
    with pytest.raises(NotFoundError, match="no store 'nowhere'"):
        found(shared, tmp_path, "board", url=url, where="nowhere")


def nothing(handler: liar.Handler, content: bytes) -> None:
    del content
    handler.send_error(404)


def instead(other: bytes) -> liar.Behaviour:
    return lambda handler, content: liar.honest(handler, content[:0] + other)


@pytest.mark.parametrize("what", ["index", "package"])
@pytest.mark.parametrize("lie", ["flipped", "unsigned"])
def test_what_was_tampered_with_is_refused(
    shared: Workspace, server: liar.Liar, tmp_path: Path, what: str, lie: str
) -> None:
    index = store.read_store(shared, "default")
    assert index is not None
    entry = index.find("board")
    assert entry is not None
    path = "/store/default/index.json" if what == "index" else entry.path
    if lie == "flipped":
        server.lies[path] = liar.flipped
    else:
        server.lies[f"{path}.asc"] = nothing
    with pytest.raises(TrustError):
        found(shared, tmp_path, "board", url=server.url)


def test_the_index_of_another_store_is_refused(
    shared: Workspace, server: liar.Liar, tmp_path: Path
) -> None:
    home = shared.channel_tree / "store/factory/state"
    for name in ("index.json", "index.json.asc"):
        server.lies[f"/store/default/{name}"] = instead((home / name).read_bytes())
    with pytest.raises(TrustError, match="of store 'factory'"):
        found(shared, tmp_path, "board", url=server.url)


def test_an_index_of_two_states_is_asked_for_again(
    shared: Workspace, server: liar.Liar, tmp_path: Path
) -> None:
    old = (shared.channel_tree / "store/default/states/1/index.json.asc").read_bytes()
    server.lies["/store/default/index.json.asc"] = liar.first(1, instead(old))
    assert found(shared, tmp_path, "board", url=server.url).info.version == "1.1"


def test_an_index_that_expired_is_refused_until_it_is_renewed(tmp_path: Path) -> None:
    made = channel_tree.make_workspace(tmp_path / "server/workspace")
    channel_tree.publish(made, 1)
    early = store.LIFETIME - timedelta(days=1)
    for version in ("1", "2", "3"):
        publish(made, "default", board(tmp_path, version=version), tmp_path, early=early)
    late = timedelta(days=1, seconds=1)
    assert found(made, tmp_path, "board").info.version == "3"
    with pytest.raises(TrustError, match="expired"):
        found(made, tmp_path, "board", late=late)
    assert store.refresh(made, now=NOW - early + store.LIFETIME / 3) == []
    upkeep.keep_up(made, progress=Silent(), now=NOW)
    assert store.refresh(made, now=NOW) == []
    assert found(made, tmp_path, "board", late=late).info.version == "3"
    assert len(list((made.channel_tree / "store/default/states").iterdir())) == 3


def test_a_published_version_never_changes(workspace: Workspace, tmp_path: Path) -> None:
    assert publish(workspace, "s", board(tmp_path), tmp_path)
    assert not publish(workspace, "s", board(tmp_path), tmp_path)
    before = (workspace.channel_tree / "store/s/state").readlink()
    with pytest.raises(CoreImageError, match="has another board"):
        publish(workspace, "s", board(tmp_path, text="vendor: me\n"), tmp_path)
    assert (workspace.channel_tree / "store/s/state").readlink() == before
    assert not list((workspace.channel_tree / "store/s").glob(".scratch-*"))
    gone = store.withdraw(workspace, "s", "board", "1.0", now=NOW)
    index = store.read_store(workspace, "s")
    assert index is not None
    assert index.packages == ()
    assert (workspace.channel_tree / gone.path[1:]).is_file()
    with pytest.raises(NotFoundError, match="has no board"):
        store.withdraw(workspace, "s", "board", "1.0", now=NOW)


def coreimage(*words: object, cwd: Path) -> run.Completed:
    argv = [sys.executable, "-m", "coreimage", *(str(word) for word in words)]
    return run.run(argv, cwd=cwd, check=False, env={"COLUMNS": "120"})


def test_the_commands_build_publish_and_show(workspace: Workspace) -> None:
    home = workspace.root
    board(home / "oem")
    made = coreimage("oem", "build", "board", cwd=home)
    assert made.stdout == b"board_1.0_amd64.tar.xz\n", made.stderr
    assert coreimage("oem", "build", "board", cwd=home).status == 0
    plan = coreimage("oem", "publish", "board", "--dry-run", cwd=home)
    assert plan.stdout == b"store 'default': board 1.0\n"
    assert not (home / "www/system-image/store").exists()
    words = ("oem", "publish", "board_1.0_amd64.tar.xz", "generic-amd64", "--store", "mine")
    (first, second) = json.loads(coreimage(*words, "--json", cwd=home).stdout)
    assert (first["name"], first["new"], second["name"]) == ("board", True, "generic-amd64")
    rows = json.loads(coreimage("oem", "list", "--json", cwd=home).stdout)
    names = {(row["name"], row["where"]) for row in rows}
    assert ("board", "store 'mine'") in names
    assert ("board", str(home / "oem/board")) in names
    shown = coreimage("oem", "show", "board", cwd=home)
    assert b"bootloader\tgrub" in shown.stdout
    missing = coreimage("oem", "show", "bord", cwd=home)
    assert missing.status == 66
    assert b"'board'" in missing.stderr
    gone = coreimage("oem", "withdraw", "board", "1.0", "--store", "mine", cwd=home)
    assert gone.status == 0
    assert coreimage("oem", "refresh", "--force", cwd=home).stdout == b"mine\n"


def test_an_older_index_is_refused_though_it_has_not_expired(
    shared: Workspace, server: liar.Liar, tmp_path: Path
) -> None:
    assert found(shared, tmp_path, "board", url=server.url).info.version == "1.1"
    for name in ("index.json", "index.json.asc"):
        old = (shared.channel_tree / "store/default/states/1" / name).read_bytes()
        server.lies[f"/store/default/{name}"] = instead(old)
    with pytest.raises(TrustError, match="has serial 1, and serial 2 was seen before"):
        found(shared, tmp_path, "board", url=server.url)
    server.lies.clear()
    assert found(shared, tmp_path, "board", url=server.url).info.version == "1.1"


def test_a_withdrawn_version_comes_back_as_it_was_or_not_at_all(
    workspace: Workspace, tmp_path: Path
) -> None:
    for version in ("1.0", "1.1"):
        publish(workspace, "s", board(tmp_path, version=version), tmp_path)
    store.withdraw(workspace, "s", "board", "1.1", now=NOW)
    store.refresh(workspace, now=NOW, force=True)
    with pytest.raises(CoreImageError, match=r"has another board 1\.1 already"):
        publish(workspace, "s", board(tmp_path, version="1.1", text="vendor: me\n"), tmp_path)
    assert publish(workspace, "s", board(tmp_path, version="1.1"), tmp_path)
    index = store.read_store(workspace, "s")
    assert index is not None
    assert [each.version for each in index.packages] == ["1.0", "1.1"]
    assert index.withdrawn == {}
