"""The builds over HTTP: lists, a page for each definition and build, logs, files, retry, abort.

/builds/, /builds/PROJECT/, /builds/PROJECT/ID/ and below that log, files/NAME, retry and abort.
With `Accept: application/json` the first three answer machines.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, NotFoundError
from coreimage.farm import log, queue
from coreimage.farm.folder import folder_of
from coreimage.model.build import Build, BuildResult, BuildStatus
from coreimage.pipeline import builds
from coreimage.web import buildviews as views
from coreimage.web.delivery import deliver
from coreimage.web.operator import Operator
from coreimage.web.pages import live_page
from coreimage.web.trees import Folder, open_beneath

PREFIX = "/builds/"
MAX_FORM = 4096
_CHUNK = 256 << 10
_NO_STORE = {"cache-control": "no-store"}
_ACTIONS = ("retry", "abort")


def respond(  # noqa: PLR0911  a table of addresses
    workspace: Workspace, operator: Operator, request: Request, body: bytes
) -> Response:
    """Return the response to a request below /builds/; NotFoundError when there is no such page."""
    parts = request.scope["path"].removeprefix(PREFIX).split("/")
    if request.method == "POST" and (len(parts) != 3 or parts[-1] not in _ACTIONS):  # noqa: PLR2004
        return _said("method not allowed", status=405, headers={"allow": "GET, HEAD"})
    match parts:
        case [""]:
            return _overview(workspace, request)
        case [number] if number.isdecimal():
            return _to_build(workspace, number)
        case [project, ""]:
            return _project(workspace, request, project)
        case [name] | [_, name]:
            return RedirectResponse(f"./{quote(name)}/", status_code=301)
        case [project, number, ""]:
            return _build(workspace, operator, request, (project, number))
        case [project, number, action] if action in _ACTIONS:
            return _act(workspace, operator, request, (project, number), action, body)
        case [project, number, *names]:
            return _part(workspace, request, (project, number), names)
        case _:
            raise NotFoundError("there is no such page")


def _part(
    workspace: Workspace, request: Request, place: tuple[str, str], names: list[str]
) -> Response:
    """Return what lies below the page of a build: its log in both forms, its files."""
    match names:
        case ["log"]:
            return _log(workspace, request, place)
        case ["files", *rest] if rest:
            return _file(workspace, request, place, "/".join(rest))
        case [name] if name.startswith("buildlog_"):
            return _packed_log(workspace, request, place, name)
        case _:
            raise NotFoundError("there is no such page")


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _json(value: Any) -> Response:
    return JSONResponse(value, headers={"cache-control": "no-cache", "vary": "Accept"})


def _page(template: str, **values: object) -> Response:
    return live_page(template, duration=views.duration, quote=quote, **values)


def _overview(workspace: Workspace, request: Request) -> Response:
    asked = request.query_params
    number = asked.get("page", "1")
    wanted = views.Filter(
        project=asked.get("project", ""),
        status=asked.get("status", ""),
        result=asked.get("result", ""),
        page=int(number) if number.isdecimal() and 0 < len(number) <= 6 and int(number) else 1,  # noqa: PLR2004
    )
    for word, known in ((wanted.status, BuildStatus), (wanted.result, BuildResult)):
        if word and word not in list(known):
            key = "status" if known is BuildStatus else "result"
            return _said(f"there is no such {key}, only {', '.join(known)}", status=400)
    store = views.open_store(workspace)
    builds, more = views.find(store, wanted) if store else ([], False)
    if _wants_json(request):
        return _json({"builds": [views.facts(each) for each in builds], "more": more})
    projects = store.projects() if store else []
    filters = (
        ("Definition", "project", projects, wanted.project),
        ("Status", "status", [each.value for each in BuildStatus], wanted.status),
        ("Result", "result", [each.value for each in BuildResult], wanted.result),
    )
    return _page(
        "builds.html",
        builds=builds,
        wanted=wanted,
        more=more,
        projects=projects,
        filters=filters,
    )


def _to_build(workspace: Workspace, number: str) -> Response:
    store = views.open_store(workspace)
    if store is None or len(number) > views.MAX_DIGITS:
        raise NotFoundError(f"there is no build '{number}'")
    project = store.get(int(number)).request.project
    return RedirectResponse(f"{PREFIX}{quote(project)}/{int(number)}/", status_code=302)


def _project(workspace: Workspace, request: Request, project: str) -> Response:
    store = views.open_store(workspace)
    newest = store.newest_of_each(project) if store else []
    if not newest and project.isdecimal():
        return _to_build(workspace, project)
    if store is None or not newest:
        raise NotFoundError(f"there are no builds of '{project}'")
    builds, more = views.find(store, views.Filter(project=project))
    if _wants_json(request):
        listed = [views.facts(each) for each in builds]
        return _json({"newest": [views.facts(each) for each in newest], "builds": listed})
    return _page(
        "definition.html",
        project=project,
        newest=newest,
        builds=builds,
        wanted=views.Filter(project=project),
        more=more,
    )


def _build(
    workspace: Workspace, operator: Operator, request: Request, place: tuple[str, str]
) -> Response:
    build = views.find_one(views.open_store(workspace), *place)
    files = views.artifacts(workspace, build)
    folder = folder_of(workspace, build.id)
    if _wants_json(request):
        listed = [{"name": each.name, "size": each.size, "sha256": each.sha256} for each in files]
        return _json({**views.facts(build), "files": listed})
    text, position, whole = views.log_end(folder)
    packed = folder.packed_log
    return _page(
        "build.html",
        build=build,
        files=files,
        log=text,
        log_position=position,
        log_whole=whole,
        packed_log=packed.name if packed else "",
        action=_action(build) if operator.may_see_buttons(request) else "",
        needs_token=operator.token is not None,
        form_secret=operator.form_secret,
    )


def _action(build: Build) -> str:
    """Return what can be done to a build, nothing when it is a success or is being aborted."""
    if build.status.finished:
        return "" if build.succeeded else "retry"
    return "" if build.abort_asked else "abort"


def _log(workspace: Workspace, request: Request, place: tuple[str, str]) -> Response:
    """Return a whole log, or what it has from a byte on, up to a limit, for the page's script."""
    build = views.find_one(views.open_store(workspace), *place)
    folder = folder_of(workspace, build.id)
    begin = request.query_params.get("from")
    if begin is None:
        return StreamingResponse(
            log.read_from(folder, 0), media_type="text/plain", headers=_NO_STORE
        )
    if not begin.isdecimal() or len(begin) > views.MAX_DIGITS:
        return PlainTextResponse("'from' is not a position\n", status_code=400)
    data = b""
    file = log.open_log(folder)
    if file is not None:
        with file:
            file.seek(int(begin))
            data = file.read(_CHUNK)
    headers = {
        **_NO_STORE,
        "x-log-position": str(int(begin) + len(data)),
        "x-build-status": build.status.value,
    }
    return Response(data, media_type="text/plain; charset=utf-8", headers=headers)


def _packed_log(
    workspace: Workspace, request: Request, place: tuple[str, str], name: str
) -> Response:
    build = views.find_one(views.open_store(workspace), *place)
    folder = folder_of(workspace, build.id)
    if folder.packed_log is None or folder.packed_log.name != name:
        raise NotFoundError(f"there is no log '{name}'")
    found = open_beneath(folder.root, name)
    if isinstance(found, Folder):
        raise NotFoundError(f"there is no log '{name}'")
    return deliver(found, request, name=name, cache="no-cache")


def _file(workspace: Workspace, request: Request, place: tuple[str, str], name: str) -> Response:
    """Return an artifact that the build's record names; others are not served."""
    build = views.find_one(views.open_store(workspace), *place)
    if name not in build.artifacts:
        raise NotFoundError(f"build '{build.id}' has no file '{name}'")
    found = open_beneath(folder_of(workspace, build.id).artifacts, name)
    if isinstance(found, Folder):
        raise NotFoundError(f"'{name}' is a directory")
    return deliver(found, request, name=PurePosixPath(name).name, cache="no-cache")


def _act(
    workspace: Workspace,
    operator: Operator,
    request: Request,
    place: tuple[str, str],
    action: str,
    body: bytes,
) -> Response:
    if request.method != "POST":
        return _said("this is done by POST", status=405, headers={"allow": "POST"})
    refused = operator.complaint(request, _form(body))
    if refused:
        return _said(refused, status=403)
    build = views.find_one(views.open_store(workspace), *place)
    try:
        if action == "retry":
            builds.retry_build(workspace, build.id)
        else:
            queue.ask_abort(workspace, build.id)
    except CoreImageError as error:
        return _said(f"{error.message}\n{error.hint}".strip(), status=409)
    # To the build's page, by GET.
    return RedirectResponse(f"{PREFIX}{quote(place[0])}/{build.id}/", status_code=303)


def _form(body: bytes) -> Mapping[str, str]:
    with suppress(ValueError):
        fields = parse_qs(body.decode(), max_num_fields=8)
        return {key: values[-1] for key, values in fields.items()}
    return {}


def _said(text: str, *, status: int, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{text}\n", status_code=status, headers=headers)
