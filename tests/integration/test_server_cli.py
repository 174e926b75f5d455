"""The commands keyring, channel and image as a person runs them."""

import json
import sys
from typing import Any

from coreimage.config import Workspace
from coreimage.lib import run
from tests.support.publications import SERIES, publish


def coreimage(workspace: Workspace, *words: str) -> run.Completed:
    argv = [sys.executable, "-m", "coreimage", *words, "--workspace", str(workspace.root)]
    return run.run(argv, env={"PYTHONPATH": ":".join(sys.path)}, check=False)


def test_from_keys_to_an_image(workspace: Workspace) -> None:
    publish(workspace, "20150511")
    listed = coreimage(workspace, "keyring", "list", "--json")
    levels = [each["level"] for each in json.loads(listed.stdout)]
    assert levels[0] == "archive-master"
    assert len(levels) == 5
    assert coreimage(workspace, "channel", "create", "ubuntu-core/edge").status == 0
    words = ("ubuntu-core/edge", "generic_amd64", "--series", SERIES, "--product", "core", "--json")
    first = json.loads(coreimage(workspace, "image", "import", *words).stdout)
    again = json.loads(coreimage(workspace, "image", "import", *words).stdout)
    assert (first["version"], first["changed"]) == (1, True)
    assert (again["version"], again["changed"]) == (1, False)
    shown = coreimage(workspace, "image", "show", "ubuntu-core/edge", "--json")
    assert json.loads(shown.stdout)["files"] == first["files"]
    channel = coreimage(workspace, "channel", "show", "ubuntu-core/edge", "--json")
    assert json.loads(channel.stdout)["devices"]["generic_amd64"]["version"] == 1
    table = coreimage(workspace, "image", "list", "ubuntu-core/edge").stdout.decode()
    assert table.splitlines()[1].startswith("1\tfull\t")


def test_errors_name_what_exists(workspace: Workspace) -> None:
    assert coreimage(workspace, "channel", "create", "edge").status == 0
    unknown = coreimage(workspace, "channel", "show", "stable")
    assert unknown.status == 66
    assert b"'edge'" in unknown.stderr
    keyring = coreimage(workspace, "keyring", "show", "master")
    assert keyring.status == 66
    assert b"image-master" in keyring.stderr
    unfed = coreimage(workspace, "image", "import", "edge")
    assert unfed.status == 66
    assert b"'ubuntu-core/edge'" in unfed.stderr


def test_a_refused_publication_has_the_exit_code_of_trust(workspace: Workspace) -> None:
    directory = publish(workspace, "20150511")
    (directory / "SHA256SUMS").write_text("changed\n")
    coreimage(workspace, "channel", "create", "ubuntu-core/edge")
    refused = coreimage(
        workspace, "image", "import", "ubuntu-core/edge", "--series", SERIES, "--product", "core"
    )
    assert refused.status == 76
    assert b"SHA256SUMS" in refused.stderr
    assert b"hint: expected a signature by a key of the keyring 'image-signing'" in refused.stderr


def test_channels_and_images_are_managed_by_commands(workspace: Workspace) -> None:
    """Results on stdout, hints and exit codes for what cannot be done, rehearsals."""
    publish(workspace, "20150511")
    for name in ("ubuntu-core/edge", "stable"):
        assert coreimage(workspace, "channel", "create", name).status == 0
    coreimage(
        workspace, "image", "import", "ubuntu-core/edge", "--series", SERIES, "--product", "core"
    )
    device = "generic_amd64"

    def done(*words: str) -> Any:
        ended = coreimage(workspace, *words, "--json")
        assert ended.status == 0, ended.stderr.decode()
        return json.loads(ended.stdout)

    rehearsed = done("image", "copy", "ubuntu-core/edge", "stable", device, "--dry-run")
    assert (rehearsed["version"], rehearsed["dry_run"]) == (1, True)
    assert done("channel", "show", "stable")["devices"] == {}
    copied = done("image", "copy", "ubuntu-core/edge", "stable", device, "--percentage", "10")
    assert (copied["version"], copied["changed"]) == (1, True)
    assert done("channel", "alias", "current", "stable")["changed"] == ["current"]
    done("image", "phase", "stable", device, "1", "30")
    assert done("channel", "show", "current")["devices"][device]["phased_percentage"] == 30
    assert done("channel", "refresh")["refreshed"] is False
    assert done("image", "missing", "--deep") == []
    assert done("image", "gc")["files"] == []
    assert done("image", "resign")["signed"] == []
    listed = {each["name"]: each for each in done("channel", "list")}
    assert listed["current"]["alias"] == "stable"
    for status, words, hint in (
        (1, ("channel", "remove", "stable"), "--force"),
        (65, ("channel", "alias", "keys", "stable"), "letters, digits"),
        (66, ("image", "withdraw", "stable", device, "9", "--reason", "x"), "its versions are 1"),
        (66, ("channel", "redirect", "old", "gone"), "the channels are"),
        (65, ("image", "expire", "stable", "--keep", "0"), "keep at least one"),
        (2, ("image", "phase", "stable", device, "1", "101"), ""),
    ):
        refused = coreimage(workspace, *words)
        assert refused.status == status, (words, refused.stderr.decode())
        assert hint in refused.stderr.decode()
        assert b"Traceback" not in refused.stderr
    pool = workspace.channel_tree / "pool"
    next(pool.glob("rootfs-*.tar.xz.asc")).unlink()
    missing = coreimage(workspace, "image", "missing", "--json")
    assert missing.status == 1
    (found,) = json.loads(missing.stdout)
    assert (found["problem"], found["path"].startswith("/pool/rootfs-")) == ("is missing", True)
