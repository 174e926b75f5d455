from itertools import chain, repeat
from pathlib import Path

import pytest

from coreimage.rootfs.packages.changelog import (
    debs_in,
    entries_between,
    flaws,
    is_security,
    parse_changelog,
)

TEXT = """\
dash (1:0.5-3+deb13u1) trixie-security; urgency=high

  * Fix a hole
    in the shell (CVE-2026-12345, CVE-2026-9999).

 -- Somebody <s@example.org>  Mon, 23 Nov 2026 10:00:00 +0000

dash (1:0.5-3) unstable; urgency=medium, binary-only=no

  [ Somebody Else ]
  * New upstream.

 -- Somebody <s@example.org>  Sun, 22 Nov 2026 10:00:00 +0000

Old entries in another form follow.

dash (0.9-1) unstable; urgency=low

  * First.

 -- Somebody <s@example.org>  Sat, 21 Nov 2026 10:00:00 +0000
"""


def test_entries_are_read_in_their_order() -> None:
    first, second, third = parse_changelog(TEXT)
    assert (first.version, first.suites, first.urgency) == (
        "1:0.5-3+deb13u1",
        "trixie-security",
        "high",
    )
    assert first.date == "Mon, 23 Nov 2026 10:00:00 +0000"
    assert first.lines == ["* Fix a hole", "  in the shell (CVE-2026-12345, CVE-2026-9999)."]
    assert first.flaws == ["CVE-2026-12345", "CVE-2026-9999"]
    assert second.lines == ["[ Somebody Else ]", "* New upstream."]
    assert (second.urgency, third.version) == ("medium", "0.9-1")
    assert [is_security(each) for each in (first, second, third)] == [True, False, False]
    assert flaws([first, second, first]) == ["CVE-2026-12345", "CVE-2026-9999"]


@pytest.mark.parametrize("text", ["", "nonsense", "dash (1) unstable; urgency=low\n\n  * x\n"])
def test_what_is_no_changelog_has_no_entries(text: str) -> None:
    assert list(parse_changelog(text)) == []


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        ("1:0.5-3", "1:0.5-3+deb13u1", ["1:0.5-3+deb13u1"]),
        ("0.9-1", "1:0.5-3+deb13u1", ["1:0.5-3+deb13u1", "1:0.5-3"]),
        ("0.9-1", "1:0.5-3+b1", ["1:0.5-3"]),
        ("0", "0.9-1", ["0.9-1"]),
        ("1:0.5-3+deb13u1", "1:0.6", []),
    ],
)
def test_entries_between_two_versions(older: str, newer: str, expected: list[str]) -> None:
    found = entries_between(parse_changelog(TEXT), older, newer)
    assert [each.version for each in found] == expected


def test_a_long_changelog_is_read_as_far_as_it_is_news() -> None:
    entries = chain(parse_changelog(TEXT), repeat(next(iter(parse_changelog(TEXT)))))
    assert len(entries_between(entries, "1:0.5-3", "1:0.5-3+deb13u1")) == 1


def test_a_deb_is_found_by_its_digest(tmp_path: Path) -> None:
    digest = "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603"  # of "ab"
    places = [tmp_path / "one", tmp_path / "two"]
    for each in places:
        each.mkdir()
    find = debs_in(places)
    assert find(digest, ["a_1_all.deb"]) is None
    (places[0] / "a_1_all.deb").write_bytes(b"another one")
    assert find(digest, ["a_1_all.deb"]) is None
    (places[1] / f"{digest}.deb").write_bytes(b"ab")
    assert find(digest, ["a_1_all.deb"]) == places[1] / f"{digest}.deb"
    (places[0] / "a_1_all.deb").write_bytes(b"ab")
    assert find(digest, ["b", "a_1_all.deb"]) == places[0] / "a_1_all.deb"
    assert find("0" * 64, []) is None
