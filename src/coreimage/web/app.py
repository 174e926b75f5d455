"""The application: which path is answered from which tree."""

import time
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

from anyio import to_thread
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, NotFoundError
from coreimage.web import builds
from coreimage.web.delivery import deliver
from coreimage.web.front import front_page
from coreimage.web.listing import listing_page
from coreimage.web.operator import Operator
from coreimage.web.pages import content_security_policy
from coreimage.web.trees import Folder, open_beneath
from coreimage.web.views import Views

_PUBLICATIONS = "/cdimage/"
_PAIR = frozenset({"/channels.json", "/channels.json.asc"})
_KEYRINGS = "/gpg/"
_METHODS = ("GET", "HEAD")
_REVALIDATE = "no-cache"
_FOREVER = "public, max-age=31536000, immutable"


def create_app(workspace: Workspace, operator: Operator | None = None) -> ASGIApp:
    """Return the application that serves the trees of a workspace.

    The channel tree lies at `/`, the publication tree at `/cdimage/`, the builds at `/builds/`.
    None of them needs to exist yet. `operator` says who may change builds; without it nobody may.
    """
    rule = operator or Operator()
    views = Views(time.monotonic)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        # In a thread: disks block, and many may ask.
        if scope["path"].startswith(builds.PREFIX):
            body = await _read_form(request) if scope["method"] == "POST" else b""
            response = await to_thread.run_sync(_from_builds, workspace, rule, request, body)
        else:
            response = await to_thread.run_sync(_respond, workspace, views, request)
        await response(scope, receive, _with_headers(send))

    return application


async def _read_form(request: Request) -> bytes:
    """Return the body of a POST request, of which no more is read than a form of ours has."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > builds.MAX_FORM:
            return b""
    return body


def _respond(workspace: Workspace, views: Views, request: Request) -> Response:
    path = request.scope["path"]  # decoded
    if request.method not in _METHODS:
        return _text("method not allowed", status=405, headers={"allow": ", ".join(_METHODS)})
    try:
        if path == "/":
            return front_page(workspace.channel_tree, workspace.publications)
        if path in (_PUBLICATIONS.removesuffix("/"), builds.PREFIX.removesuffix("/")):
            return _with_slash(path)
        if path.startswith(_PUBLICATIONS):
            return _from_publications(workspace.publications, request, path)
        return _from_channels(workspace.channel_tree, views, request, path)
    except NotFoundError:
        return _text("not found", status=404)


def _from_builds(
    workspace: Workspace, operator: Operator, request: Request, body: bytes
) -> Response:
    if request.method not in (*_METHODS, "POST"):
        return _text("method not allowed", status=405, headers={"allow": "GET, HEAD, POST"})
    try:
        return builds.respond(workspace, operator, request, body)
    except NotFoundError:
        return _text("not found", status=404)
    except CoreImageError as error:
        return _text(error.message, status=503)


def _from_publications(root: Path, request: Request, path: str) -> Response:
    found = open_beneath(root, path.removeprefix(_PUBLICATIONS))
    if not isinstance(found, Folder):
        return deliver(found, request, name=PurePosixPath(path).name, cache=_REVALIDATE)
    return listing_page(path, found.path, root) if path.endswith("/") else _with_slash(path)


def _from_channels(root: Path, views: Views, request: Request, path: str) -> Response:
    found = _open_in_view(root, views, request, path)
    if isinstance(found, Folder):
        raise NotFoundError(f"there is no page for '{path}'")
    # A payload in the pool never changes; its signature does, when keys are rotated.
    for_ever = path.startswith("/pool/") and path.endswith(".tar.xz")
    cache = _FOREVER if for_ever else _REVALIDATE
    return deliver(found, request, name=PurePosixPath(path).name, cache=cache)


def _open_in_view(root: Path, views: Views, request: Request, path: str) -> BinaryIO | Folder:
    """Open a file of the channel tree; what changes with its state is that which the client reads.

    A tree without the link `state`, as a mirror may be, has one state only.
    """
    name = path.removeprefix("/")
    if path not in _PAIR and not path.startswith(_KEYRINGS):
        return open_beneath(root, name)
    try:
        current = str((root / "state").readlink())
    except OSError:
        return open_beneath(root, name)
    client = (request.client.host if request.client else "", request.headers.get("user-agent", ""))
    state = views.state_for(client, path, head=request.method == "HEAD", current=current)
    try:
        return open_beneath(root, f"{state}/{name}")
    except NotFoundError:
        if state == current:
            raise
    views.forget(client)
    views.state_for(client, path, head=request.method == "HEAD", current=current)
    return open_beneath(root, f"{current}/{name}")


def _with_slash(path: str) -> Response:
    # Relative to the page, so that no host can be smuggled in by a path such as //host.
    return RedirectResponse(f"./{quote(PurePosixPath(path).name)}/", status_code=301)


def _text(text: str, *, status: int, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{text}\n", status_code=status, headers=headers)


def _with_headers(send: Send) -> Send:
    """Add to every response what keeps browsers from doing more than we say.

    A response that says it itself knows better.
    """
    headers = {
        "x-content-type-options": "nosniff",
        "content-security-policy": content_security_policy(),
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
    }

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = MutableHeaders(scope=message)
            for name, value in headers.items():
                given.setdefault(name, value)
        await send(message)

    return send_with_headers
