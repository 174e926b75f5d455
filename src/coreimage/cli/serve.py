"""`coreimage serve`: the channel tree, the publication tree and the builds over HTTP."""

import json
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from coreimage.cli.console import JsonOption, WorkspaceOption
from coreimage.cli.space import load_space
from coreimage.errors import TerminatedError

# How long downloads may go on after the server was asked to stop, in seconds.
_GRACE = 3


def serve(
    *,
    host: Annotated[
        str | None,
        typer.Option(help="The address to listen on; 0.0.0.0 for all. [default: 127.0.0.1]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port, 0 for any free one. [default: 8080]"),
    ] = None,
    operator_token_file: Annotated[
        Path | None,
        typer.Option(help="A file with what operators must know to retry and abort builds."),
    ] = None,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Write a line for each request to stderr.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve channels, publications and the pages of builds to devices, tools and browsers.

    The first line on stdout names the URL, as soon as requests are accepted. Host and port come
    from coreimage.toml unless they are given. Ctrl-C and SIGTERM stop the server.

    Builds are shown at /builds/, and carried out by 'coreimage build run', not by the server.
    They can be retried and aborted there by whoever knows the operator token; without a token by
    people at this machine, if the server listens on a loopback address only. Behind a proxy, use a
    token: every request comes from this machine then.

    Example: coreimage serve --port 8080
    """
    from coreimage.web.listen import listen, url_of

    space = load_space(workspace)
    settings = space.settings.serve
    listener = listen(
        settings.host if host is None else host, settings.port if port is None else port
    )
    with suppress(KeyboardInterrupt, TerminatedError), listener:
        from uvicorn import Config, Server

        from coreimage.web.app import create_app
        from coreimage.web.operator import Operator, is_loopback_address, read_token

        token = None if operator_token_file is None else read_token(operator_token_file)
        loopback = is_loopback_address(listener.getsockname()[0])
        if log_requests:
            _log_requests()
        server = Server(
            Config(
                create_app(space, Operator(loopback=loopback, token=token)),
                access_log=log_requests,
                lifespan="off",
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=_GRACE,
                ws="none",
            )
        )
        # From here on a signal ends it in good order, also one that comes before the server runs.
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, server.handle_exit)
        url = url_of(listener)
        ready = json.dumps({"url": url, "workspace": str(space.root)})
        print(ready if as_json else f"serving {space.root} at {url}", flush=True)
        server.run(sockets=[listener])


def _log_requests() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("uvicorn.access")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
