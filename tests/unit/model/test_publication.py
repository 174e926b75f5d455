from datetime import date
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.errors import DataError
from coreimage.model import publication as p

DIGEST = sha256(b"").hexdigest()
BUILD_IDS = st.builds(
    lambda day, serial: f"{day:%Y%m%d}" + (f".{serial}" if serial else ""),
    st.dates(min_value=date(1970, 1, 1)),
    st.integers(min_value=0, max_value=999_999_999),
)


def test_names_are_those_of_the_cdimage_tree() -> None:
    assert p.rootfs_name("vivid", "core", "amd64") == "vivid-preinstalled-core-amd64.tar.gz"
    assert p.device_name("vivid", "core", "amd64") == "vivid-preinstalled-core-amd64.device.tar.gz"
    assert p.sbom_name("vivid", "core", "amd64") == "vivid-preinstalled-core-amd64.cdx.json"
    assert p.manifest_name("vivid", "core", "amd64") == "vivid-preinstalled-core-amd64.manifest"
    place = p.Publication(project="ubuntu-core", series="vivid", version="20150511.1")
    assert str(place.path) == "ubuntu-core/vivid/daily-preinstalled/20150511.1"


@pytest.mark.parametrize(
    ("product", "target"),
    [("core", "amd64"), ("my-core", "armhf"), ("core", "armhf.raspi2"), ("my-core", "armhf.a-b_c")],
)
def test_the_target_is_read_from_names(product: str, target: str) -> None:
    name = p.manifest_name("vivid", product, target)
    assert p.target_in(name.removesuffix(".manifest")) == target


def test_build_ids_sort_by_number() -> None:
    names = ["20150403", "20150402.10", "20150402", "20150402.9", "20150402.1"]
    assert sorted(names, key=p.build_id_key) == [
        "20150402",
        "20150402.1",
        "20150402.9",
        "20150402.10",
        "20150403",
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("", "2015", "201504022", "20150402.", "20150402.0", "20150402.01", "20150402.1\n"),
        *("20150402.-1", " 20150402", "20150402.1.2", "pending", "../20150402"),
        "٢٠١٥٠٤٠٢",  # digits to Python, not to a directory listing
        "20150402." + "9" * 5000,
    ],
)
def test_what_is_no_build_id_is_refused(name: str) -> None:
    assert not p.is_build_id(name)
    with pytest.raises(DataError, match="is not a build id"):
        p.build_id_key(name)


@given(st.sets(BUILD_IDS, max_size=8), st.dates(min_value=date(1970, 1, 1)))
def test_the_next_build_id_is_newer_than_those_of_its_day(taken: set[str], today: date) -> None:
    try:
        new = p.next_build_id(taken, today=today)
        key = p.build_id_key(new)
    except DataError:
        assert any(each.endswith(".999999999") for each in taken)
        return
    assert new not in taken
    assert all(p.build_id_key(each) < key for each in taken if each[:8] == new[:8])


def test_the_first_build_of_a_day_has_no_serial() -> None:
    today = date(2015, 5, 11)
    assert p.next_build_id(set(), today=today) == "20150511"
    assert p.next_build_id({"20150511"}, today=today) == "20150511.1"
    assert p.next_build_id({"20150511.9", "20150511", "20150510.30"}, today=today) == "20150511.10"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden", "a\n", "a b", "-a"])
def test_a_publication_stays_in_its_tree(name: str) -> None:
    with pytest.raises(DataError, match="cannot be a project or series"):
        p.Publication(project=name, series="vivid", version="20150511")
    with pytest.raises(DataError, match="cannot be a project or series"):
        p.Publication(project="core", series=name, version="20150511")


def test_checksums_round_trip() -> None:
    sums = {"b.tar.gz": DIGEST, "a+1~rc.manifest": "0" * 64}
    text = p.format_checksums(sums)
    assert text == f"{'0' * 64} *a+1~rc.manifest\n{DIGEST} *b.tar.gz\n"
    assert p.parse_checksums(text, source="SHA256SUMS") == sums
    assert p.parse_checksums(p.format_checksums({}), source="SHA256SUMS") == {}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# comment",
        f"{DIGEST}",
        f"{DIGEST} ",
        f"{DIGEST}  ../a",
        f"{DIGEST}  a/b",
        f"{DIGEST}  .hidden",
        f"{DIGEST}  /etc/passwd",
        f"{DIGEST}  a b",
        f"{DIGEST}  a\r",
        f"{DIGEST}  a\x00",
        f"{DIGEST}  a\x0c",
        f"{DIGEST}  a\u2028{DIGEST}  b",
        f"{DIGEST}  \u00e4",
        f"{DIGEST}\ta",
        f"\\{DIGEST}  a",
        f" {DIGEST}  a",
        f"{DIGEST.upper()}  a",
        f"{DIGEST[1:]}  a",
        f"{DIGEST}0  a",
        f"SHA256 (a) = {DIGEST}",
    ],
)
def test_a_hostile_line_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(DataError, match=r"^SUMS:2: "):
        p.parse_checksums(f"{DIGEST}  good\n{line}\n{DIGEST}  b\n", source="SUMS")


def test_a_name_has_one_digest() -> None:
    text = f"{DIGEST}  a\n{DIGEST} *a\n"
    assert p.parse_checksums(text, source="SUMS") == {"a": DIGEST}
    with pytest.raises(DataError, match="SUMS:2: 'a' is listed twice"):
        p.parse_checksums(f"{DIGEST}  a\n{'0' * 64}  a\n", source="SUMS")


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        sums = p.parse_checksums(text, source="SUMS")
    except DataError:
        return
    assert p.parse_checksums(p.format_checksums(sums), source="SUMS") == sums


@pytest.mark.parametrize("name", ["../a", "a b", "a\nb", ""])
def test_a_name_that_would_not_be_read_is_not_written(name: str) -> None:
    with pytest.raises(DataError, match="cannot stand in SHA256SUMS"):
        p.format_checksums({name: DIGEST})
