"""One detached signature, checked by `gpgv`: what it says, read strictly.

Source of the status lines: GnuPG, doc/DETAILS, section "Format of the --status-fd output".
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from coreimage.lib import run

_PREFIX = "[GNUPG:] "
_HASHES = {"8": "SHA256", "9": "SHA384", "10": "SHA512"}
_BINARY_DOCUMENT = "00"
_VALIDSIG_FIELDS = 10
# What a single good signature is reported with. Any other word refuses the signature, so that a
# complaint which we do not know counts as one.
_HARMLESS = frozenset(
    {"NEWSIG", "KEY_CONSIDERED", "SIG_ID", "GOODSIG", "VALIDSIG", "VERIFICATION_COMPLIANCE_MODE"}
)
_COMPLAINTS = {
    "BADSIG": "the data was changed, or the signature belongs to other data",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired",
    "REVKEYSIG": "the key was revoked",
    "ERRSIG": "the key is not in the keyring, or its algorithm is not known",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a signature: good when `complaint` is empty.

    `fingerprint` is the signer's in upper-case hex, or a key id of 16 digits when only that is
    known, or empty; `made_at` is in UNIX seconds.
    """

    complaint: str
    fingerprint: str = ""
    hash: str = ""
    made_at: int = 0


def check(data: BinaryIO, signature: Path, *, keyring: Path) -> Verdict:
    """Check the detached signature of an open file, from its start.

    The file's position is at its start again afterwards. What is read through the same file
    object is what was checked, whatever happens to its name.
    """
    _rewind(data)
    argv = [
        "gpgv",
        *("--homedir", "/nonexistent"),
        "--ignore-time-conflict",  # a device without a clock of its own may live in the past
        *("--status-fd", "1"),
        *("--keyring", str(keyring.absolute())),
        *(str(signature.absolute()), "-"),
    ]
    ended = run.run(argv, stdin=data, check=False)
    _rewind(data)
    return judge(ended.stdout.decode(errors="replace"), status=ended.status)


def _rewind(data: BinaryIO) -> None:
    """Go to the start, for us and for children, and forget what was read before."""
    data.seek(0, os.SEEK_END)  # seeking to the start alone could keep the buffer
    data.seek(0)


def judge(text: str, *, status: int) -> Verdict:
    """Return the verdict that the status lines amount to; anything unusual is a complaint."""
    lines = [
        line.removeprefix(_PREFIX).split() for line in text.splitlines() if line.startswith(_PREFIX)
    ]
    lines = [line for line in lines if line]
    words = [line[0] for line in lines]
    signer = _signer(lines)
    if words.count("NEWSIG") > 1:
        return Verdict(complaint="it has more than one signature", fingerprint=signer)
    for word in words:
        if word in _COMPLAINTS:
            return Verdict(complaint=_COMPLAINTS[word], fingerprint=signer)
    if words.count("GOODSIG") != 1 or words.count("VALIDSIG") != 1 or status:
        return Verdict(complaint="it is not a detached OpenPGP signature", fingerprint=signer)
    strange = sorted(set(words) - _HARMLESS)
    if strange:
        return Verdict(complaint=f"gpgv reports {', '.join(strange)}", fingerprint=signer)
    return _valid(next(line[1:] for line in lines if line[0] == "VALIDSIG"))


def _valid(fields: Sequence[str]) -> Verdict:
    if len(fields) < _VALIDSIG_FIELDS:
        return Verdict(complaint="gpgv reports too little about it")
    fingerprint, made_at, digest, kind, primary = (
        fields[0],
        fields[2],
        fields[7],
        fields[8],
        fields[9],
    )
    complaint = ""
    if fingerprint != primary:
        complaint = "it was made by a subkey, not by the primary key"
    elif digest not in _HASHES:
        complaint = f"its hash algorithm (number {digest}) is weaker than SHA-256"
    elif kind != _BINARY_DOCUMENT:
        complaint = "it is not a signature of a binary file"
    return Verdict(
        complaint=complaint,
        fingerprint=fingerprint,
        hash=_HASHES.get(digest, ""),
        made_at=int(made_at) if made_at.isdecimal() else 0,
    )


def _signer(lines: Sequence[Sequence[str]]) -> str:
    """Return the fingerprint of the first signature, else its key id, else nothing."""
    for line in lines:
        if line[0] == "VALIDSIG" and len(line) > 1:
            return line[1]
        if line[0] == "ERRSIG" and len(line) > 1:
            known = line[-1]
            return known if len(known) > len(line[1]) else line[1]
        if line[0] in _COMPLAINTS and len(line) > 1:
            return line[1]
    return ""
