"""What the original's import did wrong, each by its number, and input that it must refuse.

O numbers are those of the list of known defects, C9 ones the weaknesses in the wire contract.
"""

import os
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, DataError, NotFoundError, RightsError, TrustError
from coreimage.feeds import ChannelSettings
from coreimage.lib import files, gpghome, run
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.index import Index
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.imports import importer
from coreimage.systemimage.imports.addition import ImportResult
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import layout
from coreimage.systemimage.tree.transaction import Edit
from tests.support.publications import (
    SERIES,
    device_members,
    member,
    publish,
    rootfs_members,
    sign,
    tarball,
)
from tests.support.trees import snapshot

CHANNEL, DEVICE = "ubuntu-core/edge", "generic_amd64"
Import = Callable[..., ImportResult]


@pytest.fixture
def run_import(workspace: Workspace, now: datetime) -> Import:
    channels.create_channel(workspace, CHANNEL, now=now)

    def run_one(**more: object) -> ImportResult:
        settings = {"project": "ubuntu-core", "release": "15.04", **more}
        return importer.import_image(
            workspace,
            channel=CHANNEL,
            device=DEVICE,
            settings=ChannelSettings.model_validate(settings),
            series=SERIES,
            progress=Silent(),
            now=now,
        )

    return run_one


def refused(
    workspace: Workspace, error: type[CoreImageError], match: str, action: Callable[[], object]
) -> CoreImageError:
    before = snapshot(workspace.channel_tree)
    with pytest.raises(error, match=match) as caught:
        action()
    assert snapshot(workspace.channel_tree) == before
    return caught.value


def test_o8_an_error_in_the_middle_changes_nothing(
    workspace: Workspace, run_import: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original wrote and signed the index in a `finally`."""
    publish(workspace, "20150511")
    run_import()
    publish(workspace, "20150512", rootfs=tarball(rootfs_members(text="two")))

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for place in ("_write_state", "put_index"):
        with monkeypatch.context() as patch:
            patch.setattr(Edit, place, fail)
            before = snapshot(workspace.channel_tree)
            with pytest.raises(OSError, match="No space"):
                run_import()
            assert snapshot(workspace.channel_tree) == before
    assert run_import().version == 2


def test_o15_two_importers_both_finish_in_order(workspace: Workspace, run_import: Import) -> None:
    """The original's second importer exited 0 without having done anything."""
    publish(workspace, "20150511", good=True)
    publish(workspace, "20150512", rootfs=tarball(rootfs_members(text="two")))
    results: list[ImportResult] = []
    threads = [
        threading.Thread(target=lambda word=word: results.append(run_import(accept=word)))
        for word in ("any", "good")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.version for each in results) == [1, 2]
    assert all(each.changed for each in results)
    found = layout.read_index(workspace, CHANNEL, DEVICE).images
    assert [image.version for image in found] == [1, 2]


def test_o19_modules_go_where_lib_leads(workspace: Workspace, run_import: Import) -> None:
    """The original added a directory lib/modules beside the link lib -> usr/lib."""
    publish(workspace, "20150511", rootfs=tarball(rootfs_members(merged_usr=True)))
    path = layout.local_path(workspace, run_import().image.files[0].path)
    names = run.run(["tar", "-tf", path]).stdout.decode().splitlines()
    assert "system/usr/lib/modules/" in names
    assert not any(name.startswith("system/lib/") for name in names)


def test_c9_12_file_capabilities_survive(workspace: Workspace, run_import: Import) -> None:
    """The original rewrote tarballs in a format that has no room for them."""
    value = b"\x01\x00\x00\x02\x00\x20\x00\x00".decode("utf-8", "surrogateescape")
    ping = member("usr/bin/ping", data=b"x", xattrs={"security.capability": value})
    device = member("system/usr/bin/arping", data=b"x", xattrs={"security.capability": value})
    publish(
        workspace,
        "20150511",
        rootfs=tarball([*rootfs_members(), ping]),
        device=tarball([*device_members(), device]),
    )
    for file, name in zip(run_import().image.files, ("ping", "arping"), strict=False):
        path = layout.local_path(workspace, file.path)
        with tarfile.open(path) as opened:
            found = opened.getmember(f"system/usr/bin/{name}").pax_headers
        assert found["SCHILY.xattr.security.capability"] == value


@pytest.mark.parametrize("arch", ["amd64", "amd64.device"])
def test_c9_13_sums_that_do_not_match_are_never_signed(
    workspace: Workspace, run_import: Import, arch: str
) -> None:
    """The original took the digest for the name of the file and never computed it."""
    directory = publish(workspace, "20150511")
    path = directory / f"vivid-preinstalled-core-{arch}.tar.gz"
    path.write_bytes(tarball(rootfs_members(text="replaced")))
    refused(workspace, TrustError, "is not what was vouched for", run_import)


def test_c9_16_the_first_percentage_is_part_of_publishing(
    workspace: Workspace, run_import: Import
) -> None:
    """The original offered an image to all until it was told otherwise."""
    publish(workspace, "20150511")
    run_import(phase=5)
    for path in (workspace.channel_tree / CHANNEL / DEVICE).glob("index-*.json"):
        (image,) = Index.from_json(path.read_bytes()).images
        assert image.phased_percentage == 5


def test_c9_18_what_a_crash_left_in_the_pool_is_replaced(
    workspace: Workspace, run_import: Import
) -> None:
    """The original used whatever had the name, whole or not, signed or not."""
    publish(workspace, "20150511")
    made = run_import().image.files[0]
    path = layout.local_path(workspace, made.path)
    path.write_bytes(path.read_bytes()[:100])
    Path(f"{path}.asc").unlink()
    publish(workspace, "20150512", device=tarball(device_members("two")))
    assert run_import().image.files[0].checksum == made.checksum
    assert files.sha256_of(path) == made.checksum
    assert Path(f"{path}.asc").is_file()


def test_c9_19_files_of_the_index_before_are_still_there(
    workspace: Workspace, run_import: Import
) -> None:
    """The original removed files in the moment when no index named them."""
    publish(workspace, "20150511")
    old = run_import().image
    for number in (2, 3):
        publish(workspace, f"2015051{number}", rootfs=tarball(rootfs_members(text=str(number))))
        run_import(fullcount=1)
    left = layout.read_index(workspace, CHANNEL, DEVICE).images
    assert [image.version for image in left] == [3]
    assert all(layout.local_path(workspace, file.path).is_file() for file in old.files)


def test_c9_22_versions_are_sorted_as_numbers(workspace: Workspace, run_import: Import) -> None:
    publish(workspace, "20150402.9")
    publish(workspace, "20150402.10", rootfs=tarball(rootfs_members(text="ten")))
    assert run_import().publication.endswith("/20150402.10")


def test_c9_23_the_same_inputs_give_the_same_bytes_at_any_time(
    workspace: Workspace, run_import: Import
) -> None:
    """The original put the current time into its tarballs."""
    publish(workspace, "20150511")
    first = run_import().image
    for path in (workspace.channel_tree / "pool").glob("rootfs-*"):
        path.unlink()
    publish(workspace, "20150512", device=tarball(device_members("two")))
    assert run_import().image.files[0] == first.files[0]


def test_c1_a_file_of_another_arch_under_this_name(
    workspace: Workspace, run_import: Import
) -> None:
    """Its digest is that of another line of the signed list."""
    directory = publish(workspace, "20150511")
    other = directory / "vivid-preinstalled-core-i386.tar.gz"
    other.write_bytes(tarball(rootfs_members(text="i386")))
    sign(workspace, directory)
    shutil.copy(other, directory / "vivid-preinstalled-core-amd64.tar.gz")
    refused(workspace, TrustError, "is not what was vouched for", run_import)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a\nb", "x y"])
def test_c2_lists_that_name_paths_are_refused(
    workspace: Workspace, run_import: Import, name: str
) -> None:
    directory = publish(workspace, "20150511")
    sums = directory / "SHA256SUMS"
    sums.write_text(f"{'0' * 64} *{name}\n{sums.read_text()}")
    Signer(workspace.gpg_home).sign(
        sums, directory / "SHA256SUMS.gpg", key=KeyringType.IMAGE_SIGNING
    )
    refused(workspace, DataError, "not a line of SHA256SUMS", run_import)


def test_c2_a_file_that_is_a_link_out_of_the_publication_is_what_was_signed_or_nothing(
    workspace: Workspace, run_import: Import, tmp_path: Path
) -> None:
    directory = publish(workspace, "20150511")
    path = directory / "vivid-preinstalled-core-amd64.tar.gz"
    secret = tmp_path / "secret"
    secret.write_bytes(tarball(rootfs_members(text="secret")))
    path.unlink()
    path.symlink_to(secret)
    refused(workspace, TrustError, "is not what was vouched for", run_import)


def test_h3_a_bomb_is_met_with_constant_memory(workspace: Workspace, run_import: Import) -> None:
    """A member of 2 GiB of zeros in a tarball of 2 MB: the address space would not hold it."""
    bomb = workspace.root / "bomb.tar"
    with bomb.open("wb") as file:
        file.truncate(2 << 30)
    packed = run.run(
        ["tar", "-C", bomb.parent, "--sparse", "--format=gnu", "-czf", "-", bomb.name]
    ).stdout
    publish(workspace, "20150511", device=packed)
    refused(workspace, DataError, "is in none of the folders", run_import)


def test_a_missing_key_is_told_before_anything_is_published(
    workspace: Workspace, run_import: Import
) -> None:
    publish(workspace, "20150511")
    shutil.rmtree(workspace.gpg_home / "image-signing")
    error = refused(workspace, NotFoundError, "image-signing", run_import)
    assert error.hint
    assert error.exit_code == 66


def test_a_locked_key_is_told_before_anything_is_published(
    workspace: Workspace, run_import: Import
) -> None:
    publish(workspace, "20150511")
    home = workspace.gpg_home / "image-signing"
    key = Signer(workspace.gpg_home).fingerprint(KeyringType.IMAGE_SIGNING)
    with gpghome.borrowed_home(home / gpghome.PRIVATE, [home / "public.gpg"]) as gpg:
        gpg.run("--pinentry-mode", "loopback", "--passphrase", "secret", "--passwd", key)
    error = refused(workspace, RightsError, "locked with a passphrase", run_import)
    assert error.exit_code == 77


def test_a_full_disk_leaves_the_tree_as_it_was(workspace: Workspace, run_import: Import) -> None:
    """On a file system of 3 MB, which the new image does not fit in."""
    publish(workspace, "20150511")
    run_import()
    noise = os.urandom(4 << 20)
    publish(workspace, "20150512", rootfs=tarball([*rootfs_members(), member("noise", data=noise)]))
    place = workspace.channel_tree
    script = (
        'cp -a "$1" "$1.full" && mount -t tmpfs -o size=3m none "$1" && cp -a "$1.full/." "$1" && '
        'find "$1" -type f -exec sha256sum {} + | sort >"$1.before"; shift_tree="$1"; shift; '
        '"$@"; status=$?; find "$shift_tree" -type f -exec sha256sum {} + | sort '
        '>"$shift_tree.after"; exit $status'
    )
    namespace = ["unshare", "--mount"]
    if os.geteuid() != 0:
        namespace += ["--user", "--map-root-user"]
    command = ["python3", "-m", "coreimage", "image", "import", CHANNEL, DEVICE]
    options = ["--series", SERIES, "--product", "core", "--workspace", str(workspace.root)]
    words: list[str | Path] = [sys.executable, *command[1:], *options]
    ended = run.run([*namespace, "sh", "-c", script, "sh", place, *words], check=False)
    assert ended.status == 74, ended.stderr.decode()
    assert b"No space left on device" in ended.stderr
    before, after = (Path(f"{place}.{word}").read_text() for word in ("before", "after"))
    assert before
    assert before == after
