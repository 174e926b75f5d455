import inspect
import json
import locale
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.errors import DataError, NotFoundError
from coreimage.model.index import Image, ImageType, Index, check_path, format_time, parse_time
from tests.support.documents import JSON, UNKNOWN, places, replaced

WHEN = "Mon Nov 23 14:46:23 UTC 2026"


def file(order: int, /, **other: Any) -> dict[str, Any]:
    path = f"/pool/ubuntu-{order}.tar.xz"
    return {
        "order": order,
        "path": path,
        "signature": f"{path}.asc",
        "checksum": "0" * 64,
        "size": 7,
        **other,
    }


def full(version: int = 1, **other: Any) -> dict[str, Any]:
    return {
        "type": "full",
        "version": version,
        "description": "first",
        "version_detail": "ubuntu=20150402,version=1",
        "files": [file(0), file(1)],
        **other,
    }


def delta(version: int = 2, base: int = 1) -> dict[str, Any]:
    return {**full(version), "type": "delta", "base": base}


def document(*images: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"global": {"generated_at": WHEN}, "images": list(images), **other}


def parse(value: Any) -> Index:
    return Index.from_json(json.dumps(value))


GOOD = document(full(1, **{"phased-percentage": 50}), delta(2, 1))


def test_an_index_round_trips() -> None:
    index = parse(GOOD)
    assert json.loads(index.to_json()) == GOOD
    assert Index.from_json(index.to_json()) == index
    assert [image.type for image in index.images] == [ImageType.FULL, ImageType.DELTA]
    assert index.images[0].size == 14
    assert index.images[0].files[0].signature == "/pool/ubuntu-0.tar.xz.asc"


def test_what_people_and_phasing_say_of_an_image() -> None:
    fields = {
        "description_de": "erstes",
        "description_pt_BR": "primeiro",
        "minversion": 3,
        "phased-percentage": 0,
        "bootme": True,
        "withdrawn": "does not boot",
        "tags": ["rc1", "candidate"],
    }
    value = document(full(7, **fields))
    image = parse(value).images[0]
    assert image.translations == {"de": "erstes", "pt_BR": "primeiro"}
    assert (image.minversion, image.phased_percentage, image.percentage) == (3, 0, 0)
    assert (image.bootme, image.withdrawn) == (True, "does not boot")
    assert image.tags == ("rc1", "candidate")
    assert image.extra == {}
    assert json.loads(parse(value).to_json()) == value
    plain = parse(document(full(7))).images[0]
    assert (plain.phased_percentage, plain.percentage, plain.bootme) == (None, 100, False)


@pytest.mark.parametrize("own", [None, 3])
def test_an_image_that_old_clients_must_not_start_from(own: int | None) -> None:
    """They see a minversion that nobody can meet, ours the one that people gave it."""
    fields = {"minversion": 7} | ({} if own is None else {"own_minversion": own})
    value = document(full(7, **fields))
    image = parse(value).images[0]
    assert (image.kept_from_old_clients, image.minversion, image.extra) == (True, own, {})
    assert json.loads(parse(value).to_json()) == value


@given(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
def test_unknown_keys_are_kept(
    top: dict[str, Any], head: dict[str, Any], image: dict[str, Any], part: dict[str, Any]
) -> None:
    value = document(full(1, files=[file(0, **part)], **image), **top)
    value["global"].update(head)
    assert json.loads(parse(value).to_json()) == value


@given(JSON)
def test_any_json_is_parsed_or_refused(value: Any) -> None:
    for text in (json.dumps(value), json.dumps({"global": value, "images": value})):
        with pytest.raises(DataError):
            Index.from_json(text)


@given(st.sampled_from(list(places(GOOD))), JSON)
def test_a_good_index_with_one_other_value_is_parsed_or_refused(
    at: tuple[Any, ...], value: Any
) -> None:
    try:
        index = parse(replaced(GOOD, at, value))
    except DataError:
        return
    assert Index.from_json(index.to_json()) == index


@given(st.binary())
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        Index.from_json(data)


@pytest.mark.parametrize("version", [0, -1, 65536, 1 << 63, 10**30, 1.0, True, "1", None, [1]])
def test_clients_know_versions_from_1_to_65535(version: Any) -> None:
    with pytest.raises(DataError, match="'version' of an image"):
        parse(document({**full(), "version": version}))
    with pytest.raises(DataError, match="'base' of image 2"):
        parse(document({**delta(2), "base": version}))


@pytest.mark.parametrize("size", [-1, 1 << 63, 10**4000, 7.0, False, "7", None])
def test_a_size_is_a_number_of_bytes(size: Any) -> None:
    with pytest.raises(DataError, match="'size' of '/pool/ubuntu-0"):
        parse(document(full(files=[file(0, size=size)])))


@pytest.mark.parametrize("percentage", [-1, 101, 1.0, True, None, "5"])
def test_a_phased_percentage_is_from_0_to_100(percentage: Any) -> None:
    with pytest.raises(DataError, match="'phased-percentage' of image 1"):
        parse(document(full(1, **{"phased-percentage": percentage})))


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        ({**full(), "type": "both"}, "'type' of image 1"),
        ({**full(), "type": None}, "'type' of image 1"),
        (full(base=1), "'base' does not fit"),
        ({**full(), "type": "delta"}, "'base' does not fit"),
        (full(files=[]), "has no files"),
        (full(files={}), "has no files"),
        (full(files=[7]), "a file of image 1 is not an object"),
        (full(files=[file(0), file(0)]), "the same 'order'"),
        (full(files=[{**file(0), "order": 1 << 31}]), "'order'"),
        (full(files=[file(0, signature="/pool/a.asc")]), "the signature of"),
        (full(files=[file(0, checksum="0" * 63)]), "'checksum'"),
        (full(files=[file(0, checksum="A" * 64)]), "'checksum'"),
        (full(files=[file(0, checksum="0" * 64 + "\n")]), "'checksum'"),
        (full(description=7), "'description' of image 1"),
        (full(version_detail=None), "'version_detail' of image 1"),
        (full(description_de=None), "'description_de' of image 1"),
        (full(minversion="3"), "'minversion' of image 1"),
        (full(minversion=None), "'minversion' of image 1"),
        (full(bootme=1), "'bootme' of image 1"),
        (full(withdrawn=True), "'withdrawn' of image 1"),
        (full(tags="rc1"), "'tags' of image 1"),
        (full(tags=[1]), "'tags' of image 1"),
    ],
)
def test_what_clients_stumble_over_is_refused(image: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        parse(document(image))


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "a", "//host/a", "/a//b", "/a/", "/../a", "/a/../b", "/a/./b", "/a/.."),
        *("http://host.example/a", "/a b", "/a\n", "/a\0", "/a%2e", "/a\\b", "/a*", "/a;b"),
        *("/\u00e4", None, 7, ["/a"]),
    ],
)
def test_a_path_stays_in_the_tree(path: Any) -> None:
    with pytest.raises(DataError, match="is not a path inside the channel tree"):
        check_path(path)
    with pytest.raises(DataError, match="is not a path inside the channel tree"):
        parse(document(full(1, files=[file(0, path=path, signature=f"{path}.asc")])))


def test_an_image_is_listed_once() -> None:
    assert len(parse(document(full(2), delta(2, 1), delta(3, 1), delta(3, 2))).images) == 4
    with pytest.raises(DataError, match="lists an image twice"):
        parse(document(full(2), full(2)))


def test_files_come_in_the_order_of_applying() -> None:
    index = parse(document(full(1, files=[file(3), file(0), file(2)])))
    assert [each.order for each in index.images[0].files] == [0, 2, 3]


def test_images_are_found_by_revision() -> None:
    index = parse(document(full(7), delta(9, 7), full(3), full(8)))
    newest = index.newest_full()
    assert newest is not None
    found: list[tuple[int | None, int]] = [(None, 8), (0, 8), (-1, 7), (-2, 3), (3, 3), (8, 8)]
    assert [(asked, index.full(asked).version) for asked, _ in found] == found
    assert newest.version == 8
    for revision in (-3, 9, 4, -(10**30)):
        with pytest.raises(NotFoundError, match="no full image of revision") as caught:
            index.full(revision)
        assert caught.value.hint == "its versions are 3, 7, 8"
    with pytest.raises(NotFoundError, match="has no image yet"):
        parse(document()).full(None)
    assert parse(document(delta())).newest_full() is None


def test_a_time_is_what_clients_parse() -> None:
    east = timezone(timedelta(hours=5))
    assert format_time(datetime(2026, 11, 23, 19, 46, 23, 999, tzinfo=east)) == WHEN
    assert parse_time(WHEN) == datetime(2026, 11, 23, 14, 46, 23, tzinfo=UTC)
    assert parse_time("Tue Jun  2 01:02:03 UTC 2015") == datetime(2015, 6, 2, 1, 2, 3, tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_round_trip(when: datetime) -> None:
    text = format_time(when)
    assert parse_time(text) == when.replace(microsecond=0)
    assert text == when.strftime("%a %b %d %H:%M:%S UTC ") + f"{when.year:04d}"


def test_a_time_has_the_names_of_the_c_locale() -> None:
    assert locale.setlocale(locale.LC_TIME) in {"C", "C.UTF-8"}  # pytest sets none
    for number in range(12):
        when = datetime(2026, number + 1, number + 1, tzinfo=UTC)
        assert format_time(when) == when.strftime("%a %b %d %H:%M:%S UTC %Y")


def test_a_time_does_not_look_at_the_locale() -> None:
    """Names of days and months by strftime are the locale's; only numbers may come from it."""
    source = inspect.getsource(format_time)
    assert not re.search("%[aAbBcxXpZ]", source)


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2026-11-23T14:46:23Z", "Mon Nov 23 14:46:23 2026", WHEN + "\n", " " + WHEN),
        "Mon Nov 23 14:46:23 CET 2026",
        "Mon Nov 31 14:46:23 UTC 2026",
        "Mon Nov 23 24:46:23 UTC 2026",
        "Mon Nov 23 14:46:60 UTC 2026",
        "Mon Nov 23 14:46:23 UTC 0000",
        "Mon Nov 23 14:46:23 UTC 99999999999999999999",
        "Mon Nov 9999999999999999999 14:46:23 UTC 2026",
        "Mon Nov ٢٣ 14:46:23 UTC 2026",
        "Mon Nov 2_3 14:46:23 UTC 2026",
        "Mon Nox 23 14:46:23 UTC 2026",
        "Mo. Nov 23 14:46:23 UTC 2026",
        *(None, True, 1795445183, ["Mon", "Nov", "23", "14:46:23", "UTC", "2026"]),
    ],
)
def test_another_time_is_refused(text: Any) -> None:
    with pytest.raises(DataError, match="'generated_at' is"):
        parse({"global": {"generated_at": text}, "images": []})


def test_an_index_needs_its_time() -> None:
    with pytest.raises(DataError, match="'generated_at' is None"):
        parse({"global": {}, "images": []})


def test_an_image_of_no_files_has_no_size() -> None:
    assert Image(type=ImageType.FULL, version=1, files=()).size == 0
