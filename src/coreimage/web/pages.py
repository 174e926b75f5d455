"""HTML pages: templates with escaping, one style sheet, a policy that allows nothing else."""

import base64
import functools
import hashlib
import math
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

_TEMPLATES = Path(__file__).parent / "templates"
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_THOUSAND = 1000
_TEN = 10


@functools.cache
def _style() -> str:
    return (_TEMPLATES / "style.css").read_text()


@functools.cache
def _script() -> str:
    return (_TEMPLATES / "follow.js").read_text()


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@functools.cache
def content_security_policy(*, live: bool = False) -> str:
    """Return the policy of responses: our own style sheet, no scripts, no frames, no forms.

    With `live` it is that of pages with our own script, which asks this server, and with forms.
    """
    allowed = "form-action 'none'"
    if live:
        allowed = (
            f"script-src 'sha256-{_digest(_script())}'; connect-src 'self'; form-action 'self'"
        )
    return (
        f"default-src 'none'; style-src 'sha256-{_digest(_style())}'; {allowed}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": human_size,
        "exact": exact_size,
        "moment": moment,
        "iso": datetime.isoformat,
    }
    # Our own files, byte for byte what the policy has the digests of.
    environment.globals["style"] = Markup(_style())  # noqa: S704
    environment.globals["script"] = Markup(_script())  # noqa: S704
    return environment


def page(template: str, **values: object) -> HTMLResponse:
    """Return a page made from a template."""
    text = _environment().get_template(template).render(**values)
    return HTMLResponse(text, headers={"cache-control": "no-cache"})


def live_page(template: str, **values: object) -> HTMLResponse:
    """Return a page with our script and forms, the same for nobody else: it is not kept."""
    text = _environment().get_template(template).render(**values)
    headers = {
        "cache-control": "no-store",
        "content-security-policy": content_security_policy(live=True),
        # Else browsers leave out what tells that a form was ours.
        "referrer-policy": "same-origin",
        "vary": "Accept",
    }
    return HTMLResponse(text, headers=headers)


def human_size(size: int) -> str:
    """Return a size with three digits at most: 999 bytes, 41.9 MB, 128 MB."""
    power = 0 if size < _THOUSAND else min(int(math.log10(size)) // 3, len(_UNITS) - 1)
    value = size / _THOUSAND**power
    if round(value) >= _THOUSAND and power < len(_UNITS) - 1:
        value, power = value / _THOUSAND, power + 1
    digits = 1 if power and value < _THOUSAND / _TEN else 0
    return f"{value:.{digits}f} {_UNITS[power]}"


def exact_size(size: int) -> str:
    """Return a size in bytes with its digits in groups, by spaces that do not break."""
    return f"{size:,} bytes".replace(",", "\N{NARROW NO-BREAK SPACE}")


def moment(when: datetime) -> str:
    """Return a time for people, to the minute."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M}"
