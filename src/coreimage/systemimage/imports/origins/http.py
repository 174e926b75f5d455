"""Tarballs from web servers, each with the reason that coreimage.toml gives to trust it."""

import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

from coreimage.errors import DataError, TrustError
from coreimage.feeds import HttpFeed
from coreimage.lib import files, trust
from coreimage.lib.fetch import Wanted, fetch
from coreimage.model.publication import parse_checksums
from coreimage.systemimage.imports.generation import Maker
from coreimage.systemimage.imports.generators import device
from coreimage.systemimage.imports.origins.publication import publisher_keys
from coreimage.systemimage.imports.parts import Context, Part
from coreimage.systemimage.tree.pool import PoolFile, Recipe, SideCar

_NAME, _REVISION = "http", 1
_MAX_TEXT = 4 << 20
_MAX_MONITOR = 4 << 10
_SHOWN = 5
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,127}\Z")


def resolve(feed: HttpFeed, context: Context) -> Part:
    """Return the part that a web server gives.

    Its digest is known before anything is made: from coreimage.toml, from a signed list, or from
    a download that a signature or the server's certificate vouches for. Raises UnavailableError,
    NotFoundError, TrustError, and DataError for a version that is none.
    """
    version = _monitored(feed, context)
    values = {"version": version} if version else {}
    url = context.fill(feed.url, **values)
    digest = feed.sha256 or _listed(feed, context, url, values)
    if digest is None:
        digest = _download(feed, context, url, values)
    recipe = Recipe(
        generator=_NAME,
        generator_version=_REVISION,
        source=urlsplit(url).path.rpartition("/")[2] or feed.name,
        sha256=digest,
        settings={"xz": context.workspace.settings.compression.xz},
    )
    detail = f"{feed.prefix}={version or digest[:12]}"
    sidecar = SideCar(recipe=recipe, publication=url, version_detail=detail)

    def make(maker: Maker) -> PoolFile:
        payload = _cached(context, digest)
        if not payload.is_file() or files.sha256_of(payload) != digest:
            _fetch(context, url, payload, Wanted(max_size=feed.max_size, sha256=digest))
        made = maker.convert(payload, device.write_raw, name=feed.prefix, sidecar=sidecar)
        payload.unlink(missing_ok=True)
        return made

    return Part(name=feed.prefix, sidecar=sidecar, make=make)


def _monitored(feed: HttpFeed, context: Context) -> str | None:
    """Return the version that the monitor tells, signed when there is a keyring."""
    if feed.monitor is None:
        return None
    url = context.fill(feed.monitor)
    if feed.keyring is not None:
        text = _signed_text(feed, context, url, _MAX_MONITOR)
    else:
        text = _text(context, url, _MAX_MONITOR)
    version = text.strip()
    if not _VERSION.match(version):
        raise DataError(
            f"'{url}' does not hold one version, but {version[:60]!r}",
            hint="it must hold letters, digits and . + ~ _ - alone, such as 1.2-3",
        )
    return version


def _listed(feed: HttpFeed, context: Context, url: str, values: dict[str, str]) -> str | None:
    if feed.sha256sums is None:
        return None
    where = context.fill(feed.sha256sums, **values)
    sums = parse_checksums(_signed_text(feed, context, where, _MAX_TEXT), source=where)
    name = urlsplit(url).path.rpartition("/")[2]
    if name not in sums:
        raise TrustError(
            f"'{name}' is not listed in '{where}'",
            hint=f"it has {', '.join(sorted(sums)[:_SHOWN]) or 'nothing'}: whoever signs the list "
            "must add it",
        )
    return sums[name]


def _download(feed: HttpFeed, context: Context, url: str, values: dict[str, str]) -> str:
    """Bring a file whose digest nobody tells, have it vouched for, and return its digest."""
    payload = context.scratch / f"http-{feed.name}"
    _fetch(context, url, payload, Wanted(max_size=feed.max_size))
    if feed.signature is not None:
        where = context.fill(feed.signature, **values)
        _verify(feed, context, payload, where, what=url)
    digest = files.sha256_of(payload)
    kept = _cached(context, digest)
    kept.parent.mkdir(parents=True, exist_ok=True)
    payload.replace(kept)
    return digest


def _signed_text(feed: HttpFeed, context: Context, url: str, limit: int) -> str:
    path = _small(context, url, limit)
    _verify(feed, context, path, f"{url}.gpg", what=url)
    return path.read_text(encoding="utf-8", errors="replace")


def _text(context: Context, url: str, limit: int) -> str:
    return _small(context, url, limit).read_text(encoding="utf-8", errors="replace")


def _verify(feed: HttpFeed, context: Context, path: Path, signature: str, *, what: str) -> None:
    assert feed.keyring is not None  # noqa: S101  the model demands it
    keyring = publisher_keys(context, feed.keyring)
    proof = _small(context, signature, _MAX_TEXT)
    level = str(feed.keyring)
    trust.verify(path, proof, keyring=keyring, blacklist=None, what=what, level=level)


def _small(context: Context, url: str, limit: int) -> Path:
    target = context.scratch / hashlib.sha256(url.encode()).hexdigest()
    fetch(url, target, wanted=Wanted(max_size=limit))
    return target


def _cached(context: Context, digest: str) -> Path:
    return context.workspace.cache / "imports" / digest


def _fetch(context: Context, url: str, target: Path, wanted: Wanted) -> None:
    with context.progress.task(f"downloading {url.rpartition('/')[2]}", None) as task:
        fetch(url, target, wanted=wanted, task=task)
