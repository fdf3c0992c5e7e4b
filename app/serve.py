"""How the dashboard is served: to known names only, and in nobody else's frame. `make app` starts it.

A page in a browser can be made to believe that any name is this machine (DNS rebinding) and would then read what the dashboard shows. Streamlit checks the
name of a websocket against `server.allowedHosts`; here plain requests are checked the same way.

What takes long the first time is made ready beside the pages: what the first one shows while the browser comes, and what the others need once somebody has seen the first.

What an address of before showed is elsewhere now, and a browser is sent there before a page begins: its button Back then has no step to fall back into.
"""

import importlib
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import streamlit as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import one_at_a_time, whole_torch
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.app.pages import goes_on
from soft_prompt_explorer.app.server.background import FIRST_PAGE_DRAWN

FIRST = tuple(f"soft_prompt_explorer.app.{name}" for name in ("main", "parts.first_map", "parts.lesson", "parts.opened_file"))
LATER = ("plotly.graph_objects", "scipy.stats", "sklearn.cluster", "peft")  # peft takes seconds, which who trains spends on the settings
A_LOOK = 3.0  # seconds for which nobody clicks yet, once the first page stands
FRAME_GUARD = {"X-Frame-Options": "SAMEORIGIN", "Content-Security-Policy": "frame-ancestors 'self'"}


class Guarded:
    """Refuses requests for names that are not allowed (403), and says in every answer that no other site may frame it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(FRAME_GUARD)
            await send(message)

        host = Headers(scope=scope).get("host")
        if is_host_allowed(host):
            await self._app(scope, receive, guarded)
        else:
            refused = PlainTextResponse(
                "This name is not in server.allowedHosts of app/.streamlit/config.toml; open http://localhost.\n", 403
            )
            await refused(scope, receive, guarded)


class GoingOn:
    """Sends a browser on (307) from an address of before, and from the page of a prompt or LoRA where none is named, with all that the link says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        on = None
        if scope["type"] == "http":
            on = goes_on(scope["path"].strip("/"), parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        answer = self._app if on is None else RedirectResponse(f"/{on[0]}?{urlencode(on[1])}")
        await answer(scope, receive, send)


@asynccontextmanager
async def getting_ready(_app: st.App) -> AsyncIterator[None]:
    """Serve, and make ready meanwhile what somebody would wait for."""
    threading.Thread(target=_make_ready, name="getting ready", daemon=True).start()
    yield


def _make_ready() -> None:
    from soft_prompt_explorer.app.server import at_hand

    for name in FIRST:
        importlib.import_module(name)
    at_hand.list_runs()
    with suppress(InputError):  # the page says so
        at_hand.vocabulary(EMBEDDED_MODEL)
    FIRST_PAGE_DRAWN.wait()
    time.sleep(A_LOOK)
    whole_torch()
    for name in LATER:
        with one_at_a_time():
            importlib.import_module(name)


app = st.App(Path(__file__).parent / "main.py", lifespan=getting_ready, middleware=[Middleware(Guarded), Middleware(GoingOn)])
