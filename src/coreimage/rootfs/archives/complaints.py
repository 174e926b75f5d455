"""What apt complains of, in the words and with the exit codes of ours."""

import re
from collections.abc import Iterator, Sequence

from coreimage.errors import CoreImageError, DataError, NoSpaceError, TrustError, UnavailableError

# How apt says that it has an index but does not trust it.
_REFUSALS = re.compile(
    r"GPG error|is not signed|is no longer signed|signature|NO_PUBKEY|KEYEXPIRED|BADSIG|EXPKEYSIG"
    r"|REVKEYSIG|is expired|is not valid yet|Hash Sum mismatch"
)
# A server that does not answer, or that is in trouble (503), is never said to have no such file.
_NO_SUITE = re.compile(
    r"The repository '(?P<uri>\S+) (?P<suite>\S+) Release' (?:does not have|no longer has) a "
)
_NO_COMPONENT = re.compile(
    r"as repository '(?P<uri>\S+) (?P<suite>\S+) [^']*' doesn't have the component "
    r"'(?P<component>[^']*)'"
)
_SHOWN = 3


def archive_error(name: str, said: str) -> CoreImageError:
    """Return the error for what apt said when it could not read the archives of a definition."""
    if "No space left on device" in said:
        return no_space(name)
    if _REFUSALS.search(said):
        return TrustError(
            f"the package archive of '{name}' is not trusted: {complaints(said)}",
            hint="check 'keyring' and the mirror in 'archives' of coreimage.toml, the keys of "
            "extra archives, and the clock",
        )
    missing = _NO_SUITE.search(said)
    if missing:
        return DataError(
            f"the package archive of '{name}' at '{missing['uri']}' has no suite "
            f"'{missing['suite']}'",
            hint="correct the suites of the release in definition.toml, those of the extra "
            "archive, or the mirror in 'archives' of coreimage.toml",
        )
    return UnavailableError(
        f"the package archive of '{name}' cannot be used: {complaints(said)}",
        hint="check the network and the mirror; 'archives' in coreimage.toml sets another one",
    )


def no_space(name: str) -> NoSpaceError:
    """Return the error for a file system that was full before all indices were there."""
    return NoSpaceError(
        f"no space for the indices of the package archive of '{name}'",
        hint="free some space, or choose another place",
    )


def too_slow(name: str, minutes: float) -> UnavailableError:
    """Return the error for archives whose indices did not arrive in time."""
    return UnavailableError(
        f"the indices of the package archive of '{name}' did not arrive within {minutes:g} minutes",
        hint="check the network and the mirror; 'archives' in coreimage.toml sets another one",
    )


def refuse_missing_components(name: str, said: str, sources: Sequence[str]) -> None:
    """Raise DataError for a component that is not where it is asked for.

    `sources` are the lines of the main archive: all components are asked of all of its suites, so
    it is enough that one of these has it.
    """
    skipped = {(found["uri"], found["suite"], found["component"]) for found in _skipped(said)}
    main = set(_wanted(sources))
    for uri, suite, component in sorted(skipped):
        having = {each for each in main - skipped if each[2] == component}
        if (uri, suite, component) in main and having:
            continue
        raise DataError(
            f"the package archive of '{name}' at '{uri}' has no component '{component}' in suite "
            f"'{suite}'",
            hint="correct 'components' of the release in definition.toml, or those of the extra "
            "archive",
        )


def _skipped(said: str) -> Iterator[re.Match[str]]:
    return _NO_COMPONENT.finditer(said)


def _wanted(sources: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for line in sources:
        uri, suite, *components = line.partition("] ")[2].split()
        yield from ((uri, suite, component) for component in components)


def complaints(said: str) -> str:
    """Return the last errors and warnings in what apt said, or all of it when there are none."""
    lines = [line for line in said.splitlines() if line.startswith(("E:", "W:", "Err:"))]
    return "; ".join(line.partition(":")[2].strip() for line in lines[-_SHOWN:]) or said.strip()
