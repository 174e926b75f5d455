"""Who may change something over HTTP: a person at this machine, or somebody who has the token.

A page of another site cannot do it in their name: a form carries a secret of this process, and
the browser says which site it comes from. Source: Fetch Standard; Fetch Metadata Request Headers.
"""

import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request

from coreimage.errors import DataError

_LEAST_TOKEN = 16
# What proxies add: the request then does not come from this machine, whatever its address says.
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """The rule of one server; `token` is what operators know, None when none is configured."""

    loopback: bool = False
    token: str | None = None
    form_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def may_see_buttons(self, request: Request) -> bool:
        """Tell whether a page has buttons: whoever presses one may still lack the token."""
        return self.token is not None or self._is_at_this_machine(request)

    def complaint(self, request: Request, form: Mapping[str, str]) -> str:
        """Return why a request must not change anything, nothing when it may."""
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if bearer:
            # No page of another site can add this header.
            return "" if self._is_token(bearer) else "the operator token is wrong"
        if not self.may_see_buttons(request):
            return "only somebody at this machine may do that, or with an operator token"
        if not _is_from_here(request):
            return "the request comes from another site"
        if not hmac.compare_digest(form.get("secret", "").encode(), self.form_secret.encode()):
            return "the page is older than the server: load it again"
        if self.token is not None and not self._is_token(form.get("token", "")):
            return "the operator token is missing or wrong"
        return ""

    def _is_token(self, given: str) -> bool:
        expected = self.token or ""
        return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())

    def _is_at_this_machine(self, request: Request) -> bool:
        if not self.loopback or any(name in request.headers for name in _FORWARDED):
            return False
        # A name that resolves to this machine is not enough: anybody can have such a name.
        return _is_loopback(_host(f"//{request.headers.get('host', '')}"))


def read_token(path: Path) -> str:
    """Return the operator token in a file, without white space around it; raises DataError."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"operator token '{path}': {error}") from error
    if len(token) < _LEAST_TOKEN:
        raise DataError(
            f"operator token '{path}' has {len(token)} characters, at least {_LEAST_TOKEN} are due",
            hint=f"make one: (umask 077 && openssl rand -hex 32 > {path})",
        )
    return token


def is_loopback_address(address: str) -> bool:
    """Tell whether only this machine can reach an address."""
    return _is_loopback(address)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_from_here(request: Request) -> bool:
    """Tell whether the browser says that a page of this server sent the request."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site == "same-origin"
    # Browsers that do not say the site say the origin, of every POST.
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")
