import pytest

from coreimage.errors import UsageError
from coreimage.farm.trigger import (
    ExtraArchive,
    Trigger,
    capitalised,
    extra_archives,
    parse_trigger,
    project_name,
)
from coreimage.model.build import Subproject

PAGE = {"PROJECT": "ubuntu-core", "SUBPROJECT": "system-image", "EXTRA_PPAS": "snappy-dev/image"}


def test_the_environment_of_the_original_page() -> None:
    assert parse_trigger({**PAGE, "PATH": "/bin", "CAPPROJECT": "Ubuntu-Core"}) == Trigger(
        project="ubuntu-core",
        subproject=Subproject.SYSTEM_IMAGE,
        extra_ppas=(ExtraArchive(name="snappy-dev/image"),),
    )


def test_every_variable() -> None:
    trigger = parse_trigger(
        {
            **PAGE,
            "DIST": "15.04",
            "ARCHES": " amd64  armhf amd64 armhf+raspi2 armhf+raspi2",
            "EXTRA_PPAS": "snappy-dev/image:1001 a/b:-1 a/c",
            "CHANNEL": "ubuntu-core/15.04/edge",
            "PROPOSED": "0",
            "DEBUG": "1",
        }
    )
    assert trigger.dist == "15.04"
    assert trigger.arches == ("amd64", "armhf", "armhf+raspi2")
    assert [str(each) for each in trigger.extra_ppas] == ["snappy-dev/image:1001", "a/b:-1", "a/c"]
    assert trigger.channel == "ubuntu-core/15.04/edge"
    assert trigger.debug


def test_proposed_updates_are_one_more_archive() -> None:
    trigger = parse_trigger({"PROJECT": "core", "EXTRA_PPAS": "a/b:7", "PROPOSED": "1"})
    assert extra_archives(trigger) == ["a/b:7", "proposed"]
    assert extra_archives(parse_trigger({"PROJECT": "core"})) == []


@pytest.mark.parametrize("text", ["", "none", " none "])
def test_the_kernel_stays_where_nothing_moves_it(text: str) -> None:
    assert parse_trigger({**PAGE, "SUBPROJECT": text}).subproject is Subproject.NONE


def test_what_is_empty_is_not_set() -> None:
    empty = dict.fromkeys(
        ["DIST", "ARCHES", "SUBPROJECT", "EXTRA_PPAS", "CHANNEL", "PROPOSED", "DEBUG"], " "
    )
    assert parse_trigger({**empty, "PROJECT": "core"}) == Trigger(project="core")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PROJECT", "", "PROJECT is not set"),
        ("PROJECT", "../core", "PROJECT is '../core', expected a definition"),
        ("PROJECT", "--live", "PROJECT is '--live'"),
        ("DIST", "vivid vervet", "DIST is 'vivid vervet', expected a series or release"),
        ("DIST", "--arch", "DIST is '--arch'"),
        (
            "ARCHES",
            "amd64,armhf",
            "ARCHES is 'amd64,armhf', expected names such as 'amd64 armhf+raspi2'",
        ),
        ("ARCHES", "armhf+", "ARCHES is 'armhf+'"),
        ("ARCHES", "+raspi2", "ARCHES is '+raspi2'"),
        ("ARCHES", "armhf+a+b", "ARCHES is 'armhf+a+b'"),
        ("ARCHES", "armhf.raspi2", "ARCHES is 'armhf.raspi2'"),
        ("SUBPROJECT", "touch", "SUBPROJECT is 'touch', expected 'system-image' or 'none'"),
        ("EXTRA_PPAS", "image", "EXTRA_PPAS has 'image', expected OWNER/NAME"),
        ("EXTRA_PPAS", "a/b/c", "EXTRA_PPAS has 'a/b/c'"),
        ("EXTRA_PPAS", "a/b:high", "EXTRA_PPAS has 'a/b:high'"),
        ("EXTRA_PPAS", "a/b:0", "EXTRA_PPAS has 'a/b:0'"),
        ("EXTRA_PPAS", "a/b:32768", "EXTRA_PPAS has 'a/b:32768'"),
        ("EXTRA_PPAS", "a/b a/b:5", "EXTRA_PPAS has 'a/b' with two priorities"),
        ("CHANNEL", "../edge", "CHANNEL is '../edge', expected a channel"),
        ("CHANNEL", "edge/", "CHANNEL is 'edge/'"),
        ("PROPOSED", "perhaps", "PROPOSED is 'perhaps', expected 1 or 0"),
        ("DEBUG", "2", "DEBUG is '2', expected 1 or 0"),
    ],
)
def test_a_malformed_value_is_named(variable: str, value: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_trigger({**PAGE, variable: value})

    assert raised.value.message.startswith(said)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("name", "shown"), [("ubuntu-core", "Ubuntu-Core"), ("core", "Core"), ("a-2b", "A-2b")]
)
def test_capitalised(name: str, shown: str) -> None:
    assert capitalised(project_name(name)) == shown
