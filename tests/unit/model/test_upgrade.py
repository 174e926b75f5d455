"""Which way a device takes, in worked examples."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from coreimage.model.index import Image, ImageFile, ImageType, Index
from coreimage.model.upgrade import Client, Decision, decide, old_draw, share_position

MIB = 1 << 20
MACHINE = "0123456789abcdef0123456789abcdef"


def file_of(mib: float) -> ImageFile:
    return ImageFile(order=0, path="/pool/a.tar.xz", checksum="0" * 64, size=int(mib * MIB))


def full(version: int, mib: float = 100, **fields: Any) -> Image:
    return Image(type=ImageType.FULL, version=version, files=[file_of(mib)], **fields)


def delta(base: int, version: int, mib: float = 10, **fields: Any) -> Image:
    return Image(type=ImageType.DELTA, version=version, base=base, files=[file_of(mib)], **fields)


def asked(images: Sequence[Image], build: int = 0, **fields: Any) -> Decision:
    return decide(
        Index(generated_at=datetime(2026, 1, 1, tzinfo=UTC), images=images), build=build, **fields
    )


def way(images: Sequence[Image], build: int = 0, **fields: Any) -> str:
    chosen = asked(images, build, **fields).chosen
    return "none" if chosen is None else str(chosen)


BOTH = pytest.mark.parametrize("client", Client)


@BOTH
@pytest.mark.parametrize(
    ("images", "build", "expected"),
    [
        ([], 0, "none"),
        ([full(1)], 1, "none"),
        ([full(1), full(2)], 0, "2"),
        ([full(1), full(2), delta(1, 2)], 0, "2"),
        ([full(1), full(2), delta(1, 2)], 1, "2"),
        ([full(2), delta(1, 2), delta(2, 3)], 1, "2:3"),
        ([full(3, 20), delta(1, 2, 15), delta(2, 3, 15)], 1, "3"),
        ([full(3, 40), delta(1, 2, 15), delta(2, 3, 15)], 1, "2:3"),
        ([delta(1, 2), delta(2, 3), delta(1, 3, 25)], 1, "2:3"),
        ([full(9), delta(1, 2, 1)], 1, "9"),
    ],
)
def test_the_cheapest_way_to_the_newest(
    client: Client, images: Sequence[Image], build: int, expected: str
) -> None:
    assert way(images, build, client=client) == expected


@BOTH
def test_the_score_of_each_way(client: Client) -> None:
    images = [full(3, 100), delta(1, 2, 20), delta(2, 3, 30, bootme=True), delta(1, 4, 60.5)]
    found = asked(images, 1, client=client)
    scores = {str(each): each.score for each in found.candidates}
    smallest = 50 if client is Client.OLD else 20
    assert scores["4"] == int(60.5 - smallest)
    assert scores["3"] == 100 - smallest + 9001
    assert scores["2:3"] == 100 + 50 - smallest + 9001
    assert str(found.chosen) == "4"


@BOTH
def test_a_reboot_costs_as_much_as_100_mib(client: Client) -> None:
    assert way([full(2, 109), delta(1, 2, 10, bootme=True)], 1, client=client) == "2"
    chosen = asked([full(2, 111), delta(1, 2, 10, bootme=True)], 1, client=client).chosen
    assert chosen is not None
    assert chosen.images[0].type is ImageType.DELTA


def test_what_comes_after_a_reboot_comes_later() -> None:
    chosen = asked([delta(1, 2, bootme=True), delta(2, 3), delta(3, 4)], 1).chosen
    assert chosen is not None
    assert (str(chosen), [each.version for each in chosen.first_leg]) == ("2:3:4", [2])
    assert chosen.reboots == 1


@BOTH
def test_minversion_keeps_old_builds_from_a_full_image(client: Client) -> None:
    images = [full(2), full(3, minversion=2), delta(2, 3)]
    assert way(images, 2, client=client) == "3"
    found = asked(images, 1, client=client)
    assert str(found.chosen) == "2:3"
    assert [(image.version, why) for image, why in found.unreachable] == [
        (3, "it is for builds from 2")
    ]


def test_why_an_image_is_on_no_way() -> None:
    found = asked([full(1), full(5), delta(7, 8)], 4)
    assert [why for _, why in found.unreachable] == [
        "version 1 is not newer than build 4",
        "it is a delta from 7, to which nothing leads",
    ]


def test_old_clients_count_whole_mib() -> None:
    """A delta that saves less than 1 MiB is not taken, as the full image is found first."""
    images = [full(2, 1.9), delta(1, 2, 1)]
    old = asked(images, 1, client=Client.OLD).chosen
    ours = asked(images, 1).chosen
    assert old is not None
    assert ours is not None
    assert (old.images[0].type, ours.images[0].type) == (ImageType.FULL, ImageType.DELTA)


def test_old_clients_may_start_from_an_old_full_image() -> None:
    images = [full(1, 10), full(2, 10), delta(1, 2, 0.5)]
    assert way(images, 0, client=Client.OLD) == "1:2"
    assert way(images, 0) == "2"


def test_old_clients_never_stop_half_way() -> None:
    """While the newest is not for them, they get nothing; ours take what leads up to it."""
    images = [delta(1, 2), delta(2, 3, phased_percentage=0)]
    assert way(images, 1, client=Client.OLD) == "none"
    assert way(images, 1) == "2"


@BOTH
def test_a_pulled_image_is_for_nobody(client: Client) -> None:
    images = [full(1), full(2, phased_percentage=0)]
    found = asked(images, 0, client=client, machine_id=MACHINE)
    assert str(found.chosen) == "1"
    assert [each.excluded for each in found.candidates if each.version == 2] == [
        "version 2 is offered to nobody"
    ]


def test_a_withdrawn_image_says_why() -> None:
    images = [full(1), full(2, withdrawn="it does not boot"), full(3, withdrawn="", bootme=True)]
    found = asked(images, 0)
    assert str(found.chosen) == "1"
    assert {each.excluded for each in found.candidates} >= {
        "version 2 is withdrawn: it does not boot"
    }


def test_the_way_may_lead_through_what_was_withdrawn_but_not_start_it() -> None:
    assert way([delta(1, 2, withdrawn="bad"), delta(2, 3)], 1) == "2:3"
    assert way([delta(1, 2, withdrawn="bad", bootme=True), delta(2, 3)], 1) == "none"


def machines(count: int) -> list[str]:
    return [f"{number:032x}" for number in range(count)]


@pytest.mark.parametrize("percentage", [1, 50, 99])
def test_o11_the_share_of_devices_is_right(percentage: int) -> None:
    images = [full(1, phased_percentage=percentage)]
    count = 20_000
    offered = sum(
        asked(images, machine_id=each, channel="edge").chosen is not None
        for each in machines(count)
    )
    # Five standard deviations of a fair draw.
    deviation = (count * percentage / 100 * (1 - percentage / 100)) ** 0.5
    assert abs(offered - count * percentage / 100) < 5 * deviation


def test_o11_old_clients_take_more_than_their_share() -> None:
    """Two of 101 devices at 1 %, where ours take one of 100."""
    images = [full(1, phased_percentage=1)]
    old = sum(
        asked(images, machine_id=each, client=Client.OLD).chosen is not None
        for each in machines(20_000)
    )
    assert old == pytest.approx(20_000 * 2 / 101, rel=0.15)


@BOTH
def test_raising_the_percentage_never_drops_a_device(client: Client) -> None:
    for machine in machines(100):
        offered = [
            asked([full(7, phased_percentage=each)], machine_id=machine, client=client).chosen
            is not None
            for each in range(101)
        ]
        assert offered == sorted(offered)
        assert (offered[0], offered[100]) == (False, True)


def test_other_devices_go_first_each_time() -> None:
    first = [
        {each for each in machines(1000) if share_position("edge", version, each) < 10}
        for version in (1, 2)
    ]
    assert len(first[0] & first[1]) < 40
    assert share_position("edge", 1, MACHINE) != share_position("stable", 1, MACHINE)


def test_a_draw_is_the_same_for_ever() -> None:
    """Devices would be dropped from a phase by a program that draws otherwise."""
    assert [share_position("edge", version, MACHINE) for version in (1, 2, 3)] == [41, 9, 52]
    assert [old_draw(None, version, MACHINE) for version in (1, 2, 3)] == [67, 75, 24]


def test_old_clients_draw_by_the_newest_version_and_the_followed_channel() -> None:
    images = [full(1), full(2, phased_percentage=50)]
    found = asked(images, machine_id=MACHINE, client=Client.OLD, target="stable")
    assert set(found.draws.values()) == {old_draw("stable", 2, MACHINE)}


def test_without_a_machine_id_a_phased_image_counts_as_offered() -> None:
    found = asked([full(1, phased_percentage=1)])
    assert (str(found.chosen), found.draws) == ("1", {})


@BOTH
def test_an_index_with_more_ways_than_can_be_counted_is_decided(client: Client) -> None:
    deltas = [delta(version - back, version) for version in range(4, 60) for back in (1, 2, 3)]
    found = asked([full(1), *deltas], 0, client=client)
    assert found.chosen is not None
    assert len(found.candidates) == (10_000 if client is Client.OLD else 1 + len(deltas) - 5)


@BOTH
def test_deltas_that_lead_back_are_no_way(client: Client) -> None:
    assert way([delta(3, 2), delta(2, 3)], 3, client=client) == "none"
