"""How images are offered, promoted and expired: section 4 of the wire contract, on the server."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.errors import CoreImageError, DataError, NotFoundError, UsageError
from coreimage.lib.progress import Silent
from coreimage.model.index import Image, ImageType, Index
from coreimage.systemimage.operations import channels, expiry, offers, promote
from coreimage.systemimage.operations.offers import Where, Words
from coreimage.systemimage.operations.promote import Copy, Numbering
from coreimage.systemimage.tree import editing, images, inventory, layout
from tests.conftest import NOW
from tests.integration.channel_tree import DEVICE
from tests.integration.test_channels import EDGE, newest, publish, told
from tests.support.trees import snapshot

STABLE = "ubuntu-core/15.04/stable"


@pytest.fixture(scope="session")
def offers_root(keyed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose channel has images 1 and 2, and an alias; another one is empty."""
    root = tmp_path_factory.mktemp("offers") / "workspace"
    shutil.copytree(keyed_root, root, symlinks=True)
    workspace = load_workspace(root)
    channels.create_channel(workspace, EDGE, now=NOW)
    channels.create_channel(workspace, STABLE, now=NOW)
    channels.set_alias(workspace, "current", EDGE, now=NOW)
    for version in (1, 2):
        publish(workspace, version)
    return root


@pytest.fixture
def edge(offers_root: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(offers_root, tmp_path / "workspace", symlinks=True)
    return load_workspace(tmp_path / "workspace")


def at(workspace: Workspace, channel: str = EDGE, *, dry_run: bool = False) -> Where:
    return Where(workspace=workspace, channel=channel, device=DEVICE, dry_run=dry_run)


def index(workspace: Workspace, channel: str = EDGE) -> Index:
    return layout.read_index(workspace, channel, DEVICE)


def add_delta(workspace: Workspace, now: datetime, version: int, base: int) -> None:
    """Publish a delta whose files are those of the full image: only its entry matters here."""
    found = index(workspace)
    delta = replace(found.full(version), type=ImageType.DELTA, base=base)
    with editing.edit(workspace, now=now, purpose="test") as edit:
        edit.put_index(EDGE, DEVICE, images.add_images(found, [delta]))


def copy(workspace: Workspace, now: datetime, **options: object) -> Copy:
    words = {"source": EDGE, "target": STABLE, "device": DEVICE, **options}
    return promote.copy_image(workspace, **words, progress=Silent(), now=now)  # type: ignore[arg-type]


def is_sound(workspace: Workspace, now: datetime) -> bool:
    return inventory.find_missing(workspace, now=now, deep=True, progress=Silent()) == []


def test_only_the_newest_version_is_phased_with_its_deltas(edge: Workspace, now: datetime) -> None:
    add_delta(edge, now, 2, 1)
    assert offers.set_percentage(at(edge), 2, 10, now=now) == ["current", EDGE]
    for channel in (EDGE, "current"):
        shares = {(i.version, i.type): i.phased_percentage for i in index(edge, channel).images}
        assert shares == {
            (1, ImageType.FULL): None,
            (2, ImageType.FULL): 10,
            (2, ImageType.DELTA): 10,
        }
    with pytest.raises(CoreImageError, match="is not the newest"):
        offers.set_percentage(at(edge), 1, 10, now=now)
    publish(edge, 3)
    assert {image.phased_percentage for image in index(edge).images} == {None}


def test_a_withdrawn_image_is_offered_to_nobody_until_it_is_restored(
    edge: Workspace, now: datetime
) -> None:
    offers.withdraw(at(edge), 2, "no network", now=now)
    image = newest(edge, "current")
    assert (image.phased_percentage, image.withdrawn) == (0, "no network")
    with pytest.raises(CoreImageError, match="is withdrawn: no network"):
        offers.set_percentage(at(edge), 2, 50, now=now)
    with pytest.raises(CoreImageError, match="is withdrawn"):
        copy(edge, now)
    publish(edge, 3)
    assert index(edge).full(2).phased_percentage == 0  # else it came back, were 3 withdrawn too
    offers.withdraw(at(edge), 3, "worse", now=now)
    offers.restore(at(edge), 3, now=now, percentage=5)
    offers.restore(at(edge), 2, now=now, percentage=5)
    assert [image.phased_percentage for image in index(edge).images] == [None, None, 5]
    assert {image.withdrawn for image in index(edge).images} == {None}
    with pytest.raises(CoreImageError, match="is not withdrawn"):
        offers.restore(at(edge), 2, now=now)


def test_a_tag_is_on_one_version_and_told_to_old_clients(edge: Workspace, now: datetime) -> None:
    offers.tag(at(edge), 1, "rc", now=now)
    offers.tag(at(edge), 1, "OTA-1", now=now)
    assert index(edge).full(1).tags == ("rc", "OTA-1")
    assert index(edge).full(1).version_detail == "tag=OTA-1"
    offers.tag(at(edge), 2, "OTA-1", now=now)
    first, second = index(edge, "current").images
    assert (first.tags, second.tags) == (("rc",), ("OTA-1",))
    assert first.version_detail == "tag=rc"
    offers.untag(at(edge), 2, "OTA-1", now=now)
    assert newest(edge, EDGE).version_detail == ""
    with pytest.raises(NotFoundError, match="has no tag 'OTA-1'"):
        offers.untag(at(edge), 2, "OTA-1", now=now)


def test_words_for_people_and_clients(edge: Workspace, now: datetime) -> None:
    add_delta(edge, now, 2, 1)
    words = Words(
        description="second",
        translations=offers.parse_translations(["de=zweites", "pt_BR=segundo"]),
        minversion=1,
        bootme=True,
    )
    offers.describe(at(edge), 2, words, now=now)
    full, delta = (image for image in index(edge).images if image.version == 2)
    if full.type is ImageType.DELTA:
        full, delta = delta, full
    assert (full.description, full.translations["pt_BR"], full.bootme) == (
        "second",
        "segundo",
        True,
    )
    assert (full.minversion, delta.minversion) == (1, None)  # of full images only
    offers.describe(at(edge), 2, Words(translations={"de": ""}, minversion=0), now=now)
    assert newest(edge, EDGE).translations == {"pt_BR": "segundo"}
    assert newest(edge, EDGE).minversion is None
    assert newest(edge, EDGE).bootme


def test_a_copy_has_the_payload_and_tells_its_own_number(edge: Workspace, now: datetime) -> None:
    offers.tag(at(edge), 2, "OTA-1", now=now)
    copied = copy(edge, now, percentage=10)
    assert (copied.version, copied.changed) == (1, True)
    ours, theirs = newest(edge, STABLE), newest(edge, EDGE)
    assert ours.files[:-1] == theirs.files[:-1]
    assert ours.phased_percentage == 10  # in the transaction that publishes it
    assert told(edge, ours)["channel"] == STABLE
    assert told(edge, ours)["version_detail"] == "tag=OTA-1,version=1"
    assert ours.tags == ("OTA-1",)
    again = copy(edge, now)
    assert (again.version, again.changed) == (1, False)
    assert is_sound(edge, now)


def test_a_copy_may_keep_its_number_or_shift_it(edge: Workspace, now: datetime) -> None:
    assert copy(edge, now, revision=1, numbering=Numbering(offset=9)).version == 10
    before = snapshot(edge.channel_tree)
    for numbering in (Numbering(keep=True), Numbering(offset=8), Numbering(offset=70000)):
        with pytest.raises(CoreImageError, match="cannot be number") as caught:
            copy(edge, now, numbering=numbering)
        assert "go on from 10" in caught.value.hint
    with pytest.raises(UsageError, match="not both"):
        copy(edge, now, numbering=Numbering(keep=True, offset=1))
    assert snapshot(edge.channel_tree) == before
    assert copy(edge, now, numbering=Numbering(offset=9)).version == 11
    publish(edge, 20)
    assert copy(edge, now, numbering=Numbering(keep=True)).version == 20


def test_o15_two_who_copy_at_once_both_finish_with_numbers_of_their_own(
    edge: Workspace, now: datetime
) -> None:
    versions: list[int] = []

    def promote_one(revision: int) -> None:
        versions.append(copy(edge, now, revision=revision).version)

    threads = [threading.Thread(target=promote_one, args=(revision,)) for revision in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == [1, 2]
    payloads = {image.files[0].path for image in index(edge, STABLE).images}
    assert payloads == {image.files[0].path for image in index(edge).images}
    assert is_sound(edge, now)


def test_a_copy_takes_deltas_from_what_both_channels_have(edge: Workspace, now: datetime) -> None:
    add_delta(edge, now, 2, 1)
    assert [image.base for image in copy(edge, now, revision=1).images] == [None]
    copied = copy(edge, now)
    assert [(image.version, image.base) for image in copied.images] == [(2, None), (2, 1)]
    full, delta = copied.images
    assert delta.files[-1] == full.files[-1]
    assert told(edge, full)["build_number"] == "2"
    assert is_sound(edge, now)


def test_a_minversion_means_builds_of_the_target(edge: Workspace, now: datetime) -> None:
    offers.describe(at(edge), 2, Words(minversion=1), now=now)
    with pytest.raises(CoreImageError, match="counts by itself"):
        copy(edge, now)
    assert copy(edge, now, numbering=Numbering(offset=5)).images[0].minversion == 6
    publish(edge, 8)
    offers.describe(at(edge), 8, Words(minversion=2), now=now)
    assert copy(edge, now, minversion=7).images[0].minversion == 7


def test_a_device_that_has_its_own_keyring_shares_its_payload_all_the_same(
    edge: Workspace, now: datetime
) -> None:
    channels.set_device_keyring(edge, EDGE, DEVICE, now=now)
    publish(edge, 3)
    copy(edge, now)
    assert is_sound(edge, now)


def test_as_many_full_images_stay_as_are_to_be_kept(edge: Workspace, now: datetime) -> None:
    publish(edge, 3)
    add_delta(edge, now, 2, 1)
    add_delta(edge, now, 3, 2)
    offers.withdraw(at(edge), 3, "worse", now=now)
    before = snapshot(edge.channel_tree)
    gone = expiry.expire_images(edge, EDGE, 1, now=now, dry_run=True)
    assert snapshot(edge.channel_tree) == before
    assert gone == expiry.expire_images(edge, EDGE, 1, now=now) == {DEVICE: [1]}
    for channel in (EDGE, "current"):
        left = sorted((image.version, image.base or 0) for image in index(edge, channel).images)
        assert left == [(2, 0), (2, 1), (3, 0), (3, 2)]
    assert index(edge).extra["last_version"] == 3
    with pytest.raises(DataError, match="cannot keep 0"):
        expiry.expire_images(edge, EDGE, 0, now=now)


def test_numbers_are_not_used_again_after_expiry(now: datetime) -> None:
    def full(version: int) -> Image:
        return Image(type=ImageType.FULL, version=version, files=())

    found = Index(generated_at=now, images=[full(1), replace(full(2), withdrawn="bad"), full(3)])
    assert [image.version for image in expiry.expire(found, 2).images] == [1, 2, 3]
    shorter = expiry.expire(found, 1)
    assert [image.version for image in shorter.images] == [3]
    assert images.next_version(replace(shorter, images=[])) == 4


Attempt = Callable[[Workspace, datetime], object]


@pytest.mark.parametrize(
    ("attempt", "error", "words"),
    [
        (lambda w, t: offers.set_percentage(at(w), 9, 5, now=t), NotFoundError, "no image 9"),
        (lambda w, t: offers.set_percentage(at(w), 2, 101, now=t), DataError, "101"),
        (lambda w, t: offers.set_percentage(at(w), 2, -1, now=t), DataError, "-1"),
        (
            lambda w, t: offers.set_percentage(at(w, "current"), 2, 5, now=t),
            CoreImageError,
            "follows channel",
        ),
        (lambda w, t: offers.withdraw(at(w), 2, " ", now=t), DataError, "for a reason"),
        (lambda w, t: offers.withdraw(at(w, "gone"), 2, "x", now=t), NotFoundError, "'gone'"),
        (lambda w, t: offers.tag(at(w), 2, "a,b=c", now=t), DataError, "cannot be a tag"),
        (
            lambda w, t: offers.describe(at(w), 2, Words(minversion=70000), now=t),
            DataError,
            "70000",
        ),
        (
            lambda w, t: offers.describe(at(w), 2, Words(minversion=2), now=t),
            DataError,
            "a minversion of 2 makes no sense for image 2",
        ),
        (lambda w, t: copy(w, t, minversion=1), DataError, "makes no sense for image 1"),
        (lambda w, t: copy(w, t, target="gone"), NotFoundError, "'gone'"),
        (lambda w, t: copy(w, t, device="toaster"), NotFoundError, "'toaster'"),
        (lambda w, t: copy(w, t, revision=7), NotFoundError, "revision 7"),
        (lambda w, t: copy(w, t, target="current"), CoreImageError, "follows channel"),
        (lambda w, t: copy(w, t, percentage=200), DataError, "200"),
    ],
)
def test_bad_input_changes_nothing(
    edge: Workspace, now: datetime, attempt: Attempt, error: type[CoreImageError], words: str
) -> None:
    before = snapshot(edge.channel_tree)
    with pytest.raises(error, match=words) as caught:
        attempt(edge, now)
    assert caught.value.hint
    assert snapshot(edge.channel_tree) == before


@pytest.mark.parametrize("text", ["deutsch", "=x", "DE=x", "de de=x", ""])
def test_a_translation_names_its_language(text: str) -> None:
    with pytest.raises(DataError, match="is not a translation"):
        offers.parse_translations([text])


def test_a_rehearsal_changes_nothing(edge: Workspace, now: datetime) -> None:
    before = snapshot(edge.channel_tree)
    where = at(edge, dry_run=True)
    assert offers.withdraw(where, 2, "no network", now=now) == ["current", EDGE]
    assert copy(edge, now, dry_run=True).version == 1
    assert snapshot(edge.channel_tree) == before
