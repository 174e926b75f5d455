"""Freshness: whether signed metadata is the newest, for now, for this place, and all of one piece.

Pure decisions of a client: what it remembers and what it received, judged at the time when it
started. A decision is a Refusal or None; a client that accepts stores what `remember` returns.
Source of the attacks: The Update Framework 1.0, section 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

MAX_SERIAL = (1 << 53) - 1
"""A serial beyond what every JSON reader holds exactly is nobody's."""


class Reason(StrEnum):
    """Why metadata is refused, for machines."""

    UNFRESH = "unfresh"
    EXPIRED = "expired"
    ROLLBACK = "rollback"
    CHANGED = "changed"
    MIXED = "mixed"
    FOREIGN = "foreign"
    DOWNGRADE = "downgrade"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What is wrong, with what was found and what was expected, and what to do."""

    reason: Reason
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenImage:
    """The highest version seen of a device in a channel, and the digest of its contents.

    `contents` is empty when no full image of that version was listed. `signed_by` is the key of
    the channels.json that named it.
    """

    version: int
    contents: str
    signed_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenStore:
    """The newest index seen of a store of OEM packages: its serial, sha256, and who signed it."""

    serial: int
    digest: str
    signed_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What a client keeps of a server, by the fingerprint of its archive-master.

    `serial`, `digest` (sha256) and `signed_by` (fingerprint) are those of the newest channels.json
    that was accepted, `time` when that was; `revoked` are all keys ever seen on its blacklist.
    """

    serial: int = 0
    digest: str = ""
    signed_by: str = ""
    time: datetime | None = None
    images: Mapping[str, SeenImage] = field(default_factory=dict)
    stores: Mapping[str, SeenStore] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()


NOTHING = Remembered()


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A channels.json whose signature is good; `expires` in UNIX seconds.

    `keyrings` are the sha256 that it names by type, `fetched` those of the tarballs that it was
    verified with. `signers` are the keys that signed each of these files, by name, and
    `blacklist` the keys that the server revokes.
    """

    serial: int | None
    expires: int | None
    digest: str
    signed_by: str
    keyrings: Mapping[str, str]
    fetched: Mapping[str, str]
    signers: Mapping[str, str] = field(default_factory=dict)
    blacklist: frozenset[str] = frozenset()


def effective_time(remembered: Remembered, clock: datetime) -> datetime:
    """Return the time to judge by: a clock that was set back does not make time go back."""
    return max(clock, remembered.time) if remembered.time else clock


def forgive(remembered: Remembered, blacklist: frozenset[str]) -> Remembered:
    """Return what still counts when these keys are revoked.

    What a revoked key has said is forgotten, else a thief who published the highest serial or
    version there is would lock clients out for good.
    """
    revoked = remembered.revoked | blacklist
    images = {
        name: image for name, image in remembered.images.items() if image.signed_by not in revoked
    }
    stores = {
        name: store for name, store in remembered.stores.items() if store.signed_by not in revoked
    }
    if remembered.signed_by in revoked:
        remembered = replace(remembered, serial=0, digest="", signed_by="")
    return replace(remembered, images=images, stores=stores, revoked=revoked)


def judge_mixture(received: Received) -> Refusal | None:
    """Refuse keyrings that are not the ones that channels.json was published with.

    The server may have published between two requests of ours: ask again, then believe it.
    """
    for kind, digest in sorted(received.fetched.items()):
        expected = received.keyrings.get(kind)
        if received.keyrings and expected != digest:
            return Refusal(
                reason=Reason.MIXED,
                message=f"the keyring '{kind}' has the sha256 {digest}, and channels.json was "
                f"published with {expected or 'none'}",
                hint="the server mixes files of different times; ask whoever runs it",
            )
    return None


def judge_channels(
    remembered: Remembered, received: Received, *, clock: datetime, allow_unfresh: bool = False
) -> Refusal | None:
    """Refuse a channels.json that has expired, is older than one seen, or another of its serial.

    One without serial and expiry is refused unless `allow_unfresh`, and always when this server
    had them before.
    """
    known = forgive(remembered, received.blacklist)
    for name, key in {"channels.json": received.signed_by, **received.signers}.items():
        if key in known.revoked:
            return Refusal(
                reason=Reason.REVOKED,
                message=f"'{name}' is signed by the key {key[-16:]}, which this server has revoked",
                hint="the server shows an old state; ask whoever runs it",
            )
    if received.serial is None or received.expires is None or not received.keyrings:
        return _judge_unfresh(known, received, allowed=allow_unfresh)
    return (
        _judge_serial(known, received.serial, received.digest)
        or _judge_expiry(received.expires, effective_time(remembered, clock))
        or judge_mixture(received)
    )


def _judge_unfresh(known: Remembered, received: Received, *, allowed: bool) -> Refusal | None:
    if known.serial:
        return Refusal(
            reason=Reason.ROLLBACK,
            message=f"channels.json has no serial, and serial {known.serial} of this server was "
            "seen before",
            hint="the server shows a state from before it said how fresh it is",
        )
    missing = [
        name
        for name, value in (
            ("serial", received.serial),
            ("expires", received.expires),
            ("keyrings", received.keyrings or None),
        )
        if value is None
    ]
    if allowed:
        return None
    return Refusal(
        reason=Reason.UNFRESH,
        message=f"channels.json does not say how fresh it is: it has no {' and no '.join(missing)}",
        hint="publish once with 'coreimage channel refresh'; a server that cannot say it is "
        "believed with --allow-unfresh, but may then show old images for ever",
    )


def _judge_serial(known: Remembered, serial: int, digest: str) -> Refusal | None:
    if type(serial) is not int or not 1 <= serial <= MAX_SERIAL:
        return Refusal(
            reason=Reason.CHANGED,
            message=f"the serial of channels.json is {serial!r}, expected 1 to {MAX_SERIAL}",
        )
    if serial < known.serial:
        return Refusal(
            reason=Reason.ROLLBACK,
            message=f"channels.json has serial {serial}, and serial {known.serial} of this server "
            "was seen before",
            hint="the server, or somebody on the way to it, shows an old state",
        )
    if serial == known.serial and digest != known.digest:
        return Refusal(
            reason=Reason.CHANGED,
            message=f"channels.json of serial {serial} has the sha256 {digest}, and was seen "
            f"before with {known.digest}",
            hint="two states have one serial: the server was copied, or somebody has its key",
        )
    return None


def _judge_expiry(expires: int, now: datetime) -> Refusal | None:
    if type(expires) is int and now.timestamp() < expires:
        return None
    return Refusal(
        reason=Reason.EXPIRED,
        message=f"channels.json expired on {_date(expires)}, and it is {now:%F %T} UTC",
        hint="the server no longer signs, or an old state is shown, or this clock is wrong; on the "
        "server: 'coreimage channel refresh'",
    )


def _date(seconds: object) -> str:
    try:
        return f"{datetime.fromtimestamp(int(str(seconds)), UTC):%F %T} UTC"
    except (ValueError, OverflowError, OSError):
        return repr(seconds)


def judge_index(
    *,
    digest: str,
    size: int,
    expected_digest: str | None,
    expected_size: int | None,
    what: str,
    allow_unfresh: bool = False,
) -> Refusal | None:
    """Refuse an index that is not the one that channels.json names, by sha256 and size in bytes."""
    if expected_digest is None:
        if allow_unfresh:
            return None
        return Refusal(
            reason=Reason.UNFRESH, message=f"channels.json does not bind '{what}' by its sha256"
        )
    if digest != expected_digest or (expected_size is not None and size != expected_size):
        return Refusal(
            reason=Reason.MIXED,
            message=f"'{what}' has the sha256 {digest} and {size} bytes, and channels.json names "
            f"{expected_digest} and {expected_size}",
            hint="the server shows an index of another time",
        )
    return None


def judge_place(
    says: Mapping[str, object], *, channels: tuple[str, ...], device: str, serial: int | None
) -> Refusal | None:
    """Refuse an index that says that it is for another channel or device, or of a later state.

    `says` is its 'global'; `channels` are the names that it may have. What it does not say is not
    judged: indexes of other servers say nothing.
    """
    for what, allowed in (("channel", channels), ("device", (device,))):
        if says.get(what, allowed[0]) not in allowed:
            return Refusal(
                reason=Reason.FOREIGN,
                message=f"the index says that it is for {what} '{says[what]}', not '{allowed[0]}'",
                hint="the server offers what was made for another; ask whoever runs it",
            )
    own = says.get("serial")
    if serial is not None and own is not None and (type(own) is not int or own > serial):
        return Refusal(
            reason=Reason.MIXED,
            message=f"the index is of serial {own!r}, and channels.json of {serial}",
            hint="the server mixes files of different times",
        )
    return None


def judge_images(
    remembered: Remembered, place: str, *, newest: int, contents: str, downgrade: bool
) -> Refusal | None:
    """Refuse an index whose newest version is lower than one seen, or is another image.

    `place` is channel and device, `newest` 0 when there are none; `contents` the digest of the
    newest full image's files. `downgrade` is the server's own word that going back is meant.
    """
    seen = remembered.images.get(place)
    if seen is None:
        return None
    if newest < seen.version and not downgrade:
        return Refusal(
            reason=Reason.DOWNGRADE,
            message=f"the newest image of {place} is {newest}, and {seen.version} was seen before",
            hint="if this is meant, the server must say so with 'downgrade' in the index",
        )
    if newest == seen.version and seen.contents and contents and contents != seen.contents:
        return Refusal(
            reason=Reason.CHANGED,
            message=f"image {newest} of {place} has the contents {contents}, and was seen before "
            f"with {seen.contents}",
            hint="a version never changes; the server must publish a new one",
        )
    return None


def judge_store(
    remembered: Remembered, name: str, shown: SeenStore, *, expires: int, clock: datetime
) -> Refusal | None:
    """Refuse the index of a store that has expired, is older than one seen, or another of its
    serial; `expires` in UNIX seconds.
    """
    if shown.signed_by in remembered.revoked:
        return Refusal(
            reason=Reason.REVOKED,
            message=f"the index of store '{name}' is signed by the key {shown.signed_by[-16:]}, "
            "which this server has revoked",
            hint="whoever runs the server renews it with 'coreimage oem refresh --force'",
        )
    seen = remembered.stores.get(name)
    if seen is not None and shown.serial < seen.serial:
        return Refusal(
            reason=Reason.ROLLBACK,
            message=f"the index of store '{name}' has serial {shown.serial}, and serial "
            f"{seen.serial} was seen before",
            hint="the server, or somebody on the way to it, shows an old state",
        )
    if seen is not None and shown.serial == seen.serial and shown.digest != seen.digest:
        return Refusal(
            reason=Reason.CHANGED,
            message=f"the index of store '{name}' of serial {shown.serial} has the sha256 "
            f"{shown.digest}, and was seen before with {seen.digest}",
            hint="two states have one serial: the server was copied, or somebody has its key",
        )
    if expires <= effective_time(remembered, clock).timestamp():
        return Refusal(
            reason=Reason.EXPIRED,
            message=f"the index of store '{name}' expired on {_date(expires)}",
            hint="whoever runs the server renews it with 'coreimage oem refresh'",
        )
    return None


def remember(
    remembered: Remembered,
    received: Received,
    *,
    clock: datetime,
    images: Mapping[str, SeenImage] | None = None,
) -> Remembered:
    """Return what to keep after a channels.json, and the images found with it, were accepted."""
    known = forgive(remembered, received.blacklist)
    if received.serial is None:
        return known
    return replace(
        known,
        serial=received.serial,
        digest=received.digest,
        signed_by=received.signed_by,
        time=effective_time(remembered, clock),
        images={**known.images, **(images or {})},
    )
