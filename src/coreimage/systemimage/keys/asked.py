"""What is asked of keyrings in a command's words, and whether it is what was prepared before."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from coreimage.errors import UsageError
from coreimage.lib.openpgp import key_id
from coreimage.model.keyring import KeyringType

_LONGEST_SHORT = 16


class Verb(StrEnum):
    """The commands that change keyrings."""

    ROTATE = "rotate"
    RETIRE = "retire"
    REVOKE = "revoke"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A change of keyrings as it was asked for.

    `key` is the one that is introduced, retired or revoked: a fingerprint, or the end of one in a
    person's words. What a person does not say is empty: no levels, no key, no days.
    """

    verb: Verb
    levels: Sequence[KeyringType] = ()
    key: str = ""
    days: int | None = None
    force: bool = False

    @property
    def purpose(self) -> str:
        """The command in one line, as logs and locks call it."""
        words = ["keyring", self.verb, *self.levels]
        if self.verb in (Verb.RETIRE, Verb.REVOKE) and self.key:
            words.append(key_id(self.key))
        if self.days is not None:
            words += ["--days", str(self.days)]
        return " ".join(words)


def names_key(words: str, fingerprint: str) -> bool:
    """Tell whether a person's words are a fingerprint, or 16 digits or more of its end."""
    wanted = words.upper().removeprefix("0X").replace(" ", "")
    return len(wanted) >= _LONGEST_SHORT and fingerprint.endswith(wanted)


def require_prepared(given: Asked, prepared: Asked) -> None:
    """Raise UsageError when words that are given contradict what was prepared."""
    contradiction = _contradiction(given, prepared)
    if contradiction:
        key = f" with the key {key_id(prepared.key)}" if prepared.verb is Verb.ROTATE else ""
        raise UsageError(
            contradiction,
            hint=f"prepared is 'coreimage {prepared.purpose}'{key}: finish that, or prepare "
            "another change with --prepare DIR, which takes its place",
        )


def _contradiction(given: Asked, prepared: Asked) -> str:
    other_levels = bool(given.levels) and set(given.levels) != set(prepared.levels)
    if given.verb is not prepared.verb or other_levels:
        return f"'coreimage {given.purpose}' is not the change that was prepared"
    if given.key and not names_key(given.key, prepared.key):
        return f"the key '{given.key}' is not that of the change that was prepared"
    if given.days not in (None, prepared.days):
        return f"'--days {given.days}' is not what was prepared: the keyrings have their expiry"
    if given.force and not prepared.force:
        return "'--force' is not what was prepared"
    return ""
