"""Verdicts from the status lines of gpgv."""

import pytest

from coreimage.lib.gpgv import judge

KEY = "420F0E8729F951814F73EBAE5FF01A5C4563A1D0"
OTHER = "1A73BC74357023FA73CEBB08E7CD8F7B217C50A4"


def status(
    *lines: str, primary: str = KEY, digest: str = "10", kind: str = "00", good: bool = True
) -> str:
    valid = f"VALIDSIG {KEY} 2026-11-23 1795473043 0 4 0 1 {digest} {kind} {primary}"
    usual = ["NEWSIG", f"KEY_CONSIDERED {KEY} 0", f"GOODSIG {KEY[-16:]} somebody", valid]
    return "".join(f"[GNUPG:] {line}\n" for line in [*(usual if good else []), *lines])


def test_a_good_signature() -> None:
    verdict = judge(status(), status=0)
    assert (verdict.complaint, verdict.fingerprint) == ("", KEY)
    assert (verdict.hash, verdict.made_at) == ("SHA512", 1795473043)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (status("NEWSIG"), "more than one"),
        (status(f"EXPKEYSIG {KEY[-16:]} x"), "key has expired"),
        (status(f"REVKEYSIG {KEY[-16:]} x"), "revoked"),
        (status(f"EXPSIG {KEY[-16:]} x"), "signature has expired"),
        (status(f"BADSIG {KEY[-16:]} x"), "changed"),
        (status(f"GOODSIG {OTHER[-16:]} x"), "not a detached"),
        (status("PLAINTEXT 62 0 name"), "PLAINTEXT"),
        (status("SOMETHING_NEW 1"), "SOMETHING_NEW"),
        (status(primary=OTHER), "subkey"),
        (status(digest="2"), "number 2"),
        (status(digest="1"), "number 1"),
        (status(kind="01"), "binary file"),
        (status("NEWSIG", f"ERRSIG {KEY[-16:]} 1 10 00 1 9 {KEY}", good=False), "keyring"),
        ("", "not a detached"),
        ("[GNUPG:] \n[GNUPG:] GOODSIG\n[GNUPG:] VALIDSIG\n", "too little"),
    ],
)
def test_everything_else_is_a_complaint(text: str, complaint: str) -> None:
    assert complaint in judge(text, status=0).complaint


def test_a_good_report_with_a_bad_exit_status_is_a_complaint() -> None:
    assert judge(status(), status=2).complaint


def test_status_lines_count_only_at_the_start_of_a_line() -> None:
    assert judge(f"x {status()}".replace("\n", " "), status=0).complaint


def test_an_unknown_key_is_named() -> None:
    text = status("NEWSIG", f"ERRSIG {KEY[-16:]} 1 10 00 1795473043 9 {KEY}", good=False)
    assert judge(text, status=2).fingerprint == KEY
    old = status("NEWSIG", f"ERRSIG {KEY[-16:]} 1 10 00 1795473043 9", good=False)
    assert judge(old, status=2).fingerprint == KEY[-16:]
