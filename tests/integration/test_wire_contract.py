"""Whatever is done to a tree, clients in the field accept it: sections 1 to 4 of the contract."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.lib.progress import Silent
from coreimage.model.index import ImageType
from coreimage.systemimage.keys import resign
from coreimage.systemimage.operations import channels, expiry, offers, promote
from coreimage.systemimage.operations.offers import Where, Words
from coreimage.systemimage.tree import editing, images, layout, orphans
from tests.integration.channel_tree import DEVICE
from tests.integration.test_channels import EDGE, publish
from tests.support.product import SOURCES, Product
from tests.support.trees import snapshot
from tests.support.wire import Tree

Step = Callable[[Workspace, datetime], object]
STABLE = "ubuntu-core/15.04/stable"


def add_delta(workspace: Workspace, now: datetime) -> None:
    index = layout.read_index(workspace, EDGE, DEVICE)
    delta = replace(index.full(3), type=ImageType.DELTA, base=2)
    with editing.edit(workspace, now=now, purpose="test") as edit:
        edit.put_index(EDGE, DEVICE, images.add_images(index, [delta]))


def copy(workspace: Workspace, now: datetime, **options: int) -> None:
    promote.copy_image(
        workspace,
        source=EDGE,
        target=STABLE,
        device=DEVICE,
        progress=Silent(),
        now=now,
        **options,  # type: ignore[arg-type]
    )


def edge(workspace: Workspace) -> Where:
    return Where(workspace=workspace, channel=EDGE, device=DEVICE)


STEPS: list[tuple[str, Step]] = [
    ("create", lambda w, t: channels.create_channel(w, EDGE, now=t)),
    ("create another", lambda w, t: channels.create_channel(w, STABLE, now=t)),
    ("alias of an empty channel", lambda w, t: channels.set_alias(w, "current", EDGE, now=t)),
    ("image 1", lambda w, _: publish(w, 1)),
    ("a second device", lambda w, _: publish(w, 1, device="mako")),
    ("image 2", lambda w, _: publish(w, 2)),
    ("copy in a phase", lambda w, t: copy(w, t, percentage=10)),
    ("phase", lambda w, t: offers.set_percentage(edge(w), 2, 20, now=t)),
    ("image 3", lambda w, _: publish(w, 3)),
    ("a delta", add_delta),
    ("withdraw", lambda w, t: offers.withdraw(edge(w), 3, "no network", now=t)),
    ("image 4", lambda w, _: publish(w, 4)),
    ("restore", lambda w, t: offers.restore(edge(w), 3, now=t)),
    ("tag", lambda w, t: offers.tag(edge(w), 4, "OTA-1", now=t)),
    (
        "describe",
        lambda w, t: offers.describe(
            edge(w), 4, Words(translations={"de": "vier"}, minversion=2, bootme=True), now=t
        ),
    ),
    ("copy for all builds", lambda w, t: copy(w, t, minversion=0)),
    ("redirect", lambda w, t: channels.set_redirect(w, "old", "current", now=t)),
    (
        "redirect a device",
        lambda w, t: channels.set_redirect(w, STABLE, EDGE, device="mako", now=t),
    ),
    ("a device keyring", lambda w, t: channels.set_device_keyring(w, EDGE, DEVICE, now=t)),
    ("image 5 by its key", lambda w, _: publish(w, 5)),
    ("no keyring", lambda w, t: channels.set_device_keyring(w, EDGE, DEVICE, now=t, remove=True)),
    (
        "another target",
        lambda w, t: channels.set_alias(
            w, "current", STABLE, now=t, force=True, allow_downgrade=True
        ),
    ),
    ("hide", lambda w, t: channels.set_hidden(w, EDGE, hidden=True, now=t)),
    (
        "rename",
        lambda w, t: channels.rename_channel(
            w, STABLE, "stable", now=t, force=True, keep_redirect=True
        ),
    ),
    ("end of an alias", lambda w, t: channels.unset_alias(w, "current", now=t)),
    ("expire", lambda w, t: expiry.expire_images(w, EDGE, 1, now=t)),
    ("sign again", lambda w, t: resign.resign_all(w, now=t, progress=Silent())),
    ("refresh", lambda w, t: channels.refresh(w, now=t, force=True)),
    ("collect", lambda w, t: orphans.collect(w, now=t, grace=timedelta(0))),
    ("remove", lambda w, t: channels.remove_channel(w, EDGE, now=t, force=True)),
    ("collect the rest", lambda w, t: orphans.collect(w, now=t, grace=timedelta(0))),
]


def test_clients_accept_the_tree_after_every_step(
    workspace: Workspace, now: datetime, tmp_path: Path
) -> None:
    scratch = tmp_path / "wire"
    scratch.mkdir()
    seen = Tree(workspace.channel_tree, scratch)
    serial = layout.read_channels(workspace).serial or 0
    for name, step in STEPS:
        step(workspace, now)
        assert (name, seen.complaints()) == (name, [])
        found = layout.read_channels(workspace).serial or 0
        assert found >= serial, name
        serial = found
    assert set(layout.read_channels(workspace).channels) == {"current", "old", "stable", STABLE}


def test_the_judge_sees_what_is_wrong(workspace: Workspace, tmp_path: Path) -> None:
    """A judge that never complains would prove nothing."""
    channels.create_channel(workspace, EDGE, now=datetime(2026, 11, 23).astimezone())
    image = publish(workspace, 1)
    scratch = tmp_path / "wire"
    scratch.mkdir()
    assert Tree(workspace.channel_tree, scratch).complaints() == []
    paths = [layout.local_path(workspace, file.path) for file in image.files]
    shutil.copy(f"{paths[0]}.asc", f"{paths[1]}.asc")
    paths[0].write_bytes(paths[0].read_bytes() + b"x")
    paths[2].unlink()
    found = "\n".join(Tree(workspace.channel_tree, scratch).complaints())
    assert "2: " in found
    assert "does not verify" in found
    assert "checksum or size" in found
    assert "is missing" in found


@pytest.mark.parametrize(
    "words", [("channel", "alias", "stable", EDGE), ("channel", "refresh", "--force")]
)
def test_a_full_disk_changes_nothing(
    workspace: Workspace, now: datetime, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """The workspace lies on a file system of its own, which is filled to the last block."""
    channels.create_channel(workspace, EDGE, now=now)
    publish(workspace, 1)
    small = tmp_path / "small"
    small.mkdir()
    shell = (
        f"mount -t tmpfs -o size=2m none {small} && cp -a {workspace.root} {small} && "
        f"(dd if=/dev/zero of={small}/rest bs=1k 2>/dev/null; true) && "
        f'cp -a {small}/workspace/www {tmp_path}/before && "$@"; status=$?; '
        f"cp -a {small}/workspace/www {tmp_path}/after; exit $status"
    )
    product = Product(
        folder=SOURCES,
        prefix=["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh"],
    )
    said = product.refused(*words, "--workspace", f"{small}/workspace", status=74)
    assert "No space left" in said or "space" in said
    assert snapshot(tmp_path / "after") == snapshot(tmp_path / "before")
