import pytest

from coreimage.errors import CoreImageError, DataError, NoSpaceError, TrustError, UnavailableError
from coreimage.rootfs.archives.complaints import archive_error, refuse_missing_components

URI = "http://mirror.example/debian"
SOURCES = [f"deb [signed-by=/k.gpg] {URI} {suite} main local" for suite in ("trixie", "more")]


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ("E: The repository '{} x Release' is not signed.", TrustError, 76),
        ("E: The repository '{} x Release' is no longer signed.", TrustError, 76),
        ("E: The repository '{} x Release' does not have a Release file.", DataError, 65),
        ("E: The repository '{} x Release' no longer has a Release file.", DataError, 65),
        ("E: Failed to fetch {}/dists/x/InRelease  503  Unavailable", UnavailableError, 69),
        ("E: Failed to fetch {}/dists/x/InRelease  Could not connect", UnavailableError, 69),
        ("E: write - write (28: No space left on device)", NoSpaceError, 74),
    ],
)
def test_who_is_to_blame(said: str, kind: type[CoreImageError], code: int) -> None:
    error = archive_error("tiny", said.format(URI))
    assert type(error) is kind
    assert error.exit_code == code
    assert "'tiny'" in error.message
    assert error.hint
    if kind is DataError:
        assert error.message.endswith(f"at '{URI}' has no suite 'x'")


def skipped(suite: str, component: str, uri: str = URI) -> str:
    return (
        f"W: Skipping acquire of configured file '{component}/binary-amd64/Packages' as repository "
        f"'{uri} {suite} InRelease' doesn't have the component '{component}' (component misspelt "
        "in sources.list?)\n"
    )


def test_a_component_must_be_in_one_of_the_suites_that_share_it() -> None:
    refuse_missing_components("tiny", "", SOURCES)
    refuse_missing_components("tiny", skipped("more", "local"), SOURCES)
    both = skipped("trixie", "local") + skipped("more", "local")
    with pytest.raises(DataError, match="no component 'local' in suite 'more'") as caught:
        refuse_missing_components("tiny", both, SOURCES)
    assert "'components'" in caught.value.hint
    with pytest.raises(DataError, match=r"at 'http://ppa\.example' has no component 'main'"):
        refuse_missing_components("tiny", skipped("trixie", "main", "http://ppa.example"), SOURCES)
