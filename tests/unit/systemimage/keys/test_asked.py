import pytest

from coreimage.errors import UsageError
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys.asked import Asked, Verb, names_key, require_prepared

MASTER, SIGNING = KeyringType.IMAGE_MASTER, KeyringType.IMAGE_SIGNING
KEY, OTHER = "0123456789ABCDEF" * 2 + "01234567", "F" * 40
ROTATE = Asked(verb=Verb.ROTATE, levels=[SIGNING], key=KEY)
RETIRE = Asked(verb=Verb.RETIRE, levels=[SIGNING], key=KEY)
REVOKE = Asked(verb=Verb.REVOKE, key=KEY, force=True)
PUBLISH = Asked(verb=Verb.PUBLISH, levels=[SIGNING, MASTER], days=365)
SHORT = "89ABCDEF01234567"


@pytest.mark.parametrize("words", [KEY, SHORT, f"0x{SHORT.lower()}", "89AB CDEF 0123 4567"])
def test_a_key_is_named_by_its_end(words: str) -> None:
    assert names_key(words, KEY)


@pytest.mark.parametrize("words", ["", SHORT[1:], OTHER, KEY[:-1]])
def test_anything_else_names_no_key(words: str) -> None:
    assert not names_key(words, KEY)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (ROTATE, "keyring rotate image-signing"),
        (RETIRE, f"keyring retire image-signing {SHORT}"),
        (REVOKE, f"keyring revoke {SHORT}"),
        (PUBLISH, "keyring publish image-signing image-master --days 365"),
        (Asked(verb=Verb.PUBLISH), "keyring publish"),
    ],
)
def test_the_line(asked: Asked, line: str) -> None:
    assert asked.purpose == line


@pytest.mark.parametrize(
    ("given", "prepared"),
    [
        *((each, each) for each in (ROTATE, RETIRE, REVOKE, PUBLISH)),
        (Asked(verb=Verb.ROTATE, levels=[SIGNING]), ROTATE),
        (Asked(verb=Verb.RETIRE, levels=[SIGNING]), RETIRE),
        (Asked(verb=Verb.RETIRE, levels=[SIGNING], key=SHORT), RETIRE),
        (Asked(verb=Verb.REVOKE, key=SHORT), REVOKE),
        (Asked(verb=Verb.PUBLISH), PUBLISH),
        (Asked(verb=Verb.PUBLISH, levels=[MASTER, SIGNING]), PUBLISH),
    ],
)
def test_what_is_not_said_contradicts_nothing(given: Asked, prepared: Asked) -> None:
    require_prepared(given, prepared)


@pytest.mark.parametrize(
    ("given", "prepared", "complaint"),
    [
        (RETIRE, ROTATE, "'coreimage keyring retire image-signing .*' is not the change that was"),
        (Asked(verb=Verb.ROTATE, levels=[MASTER]), ROTATE, "rotate image-master' is not the"),
        (Asked(verb=Verb.ROTATE, levels=[SIGNING], key=OTHER), ROTATE, f"'{OTHER}' is not that"),
        (Asked(verb=Verb.RETIRE, levels=[SIGNING], key="4567"), RETIRE, "'4567' is not that of"),
        (Asked(verb=Verb.RETIRE, levels=[SIGNING], force=True), RETIRE, "'--force' is not what"),
        (Asked(verb=Verb.REVOKE, key=OTHER), REVOKE, f"'{OTHER}' is not that of the change"),
        (Asked(verb=Verb.PUBLISH, levels=[SIGNING]), PUBLISH, "publish image-signing' is not"),
        (Asked(verb=Verb.PUBLISH, days=7), PUBLISH, "'--days 7' is not what was prepared"),
    ],
)
def test_a_contradiction_is_refused(given: Asked, prepared: Asked, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        require_prepared(given, prepared)
    assert f"prepared is 'coreimage {prepared.purpose}'" in caught.value.hint
    assert "--prepare DIR" in caught.value.hint
