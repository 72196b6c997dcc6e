"""Switches for tests and demonstrations pass through here: faults, delays, counts, dates. No provider has these.

They lie outside /v1 and take no key: the server listens on the loopback address only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.local.model.catalog import Catalog
from infra.local.model.door import Desk
from infra.local.model.errors import ApiError, wrong_value
from infra.local.model.faults import ENDPOINTS, RUNNING, kinds_at
from infra.local.model.fields import Fields, read_json
from infra.local.model.hooks import Hooks
from infra.local.model.reply import json_reply
from infra.local.model.runner import Pace

LONGEST_TRAINING = 3600.0


class Admin:
    """The endpoints outside /v1."""

    def __init__(self, *, desk: Desk, pace: Pace, catalog: Catalog, hooks: Hooks) -> None:
        self._faults = desk.faults
        self._calls = desk.calls
        self._latency = desk.latency
        self._pace = pace
        self._catalog = catalog
        self._hooks = hooks

    def routes(self) -> list[Route]:
        """The routes to add to the app."""
        return [
            _route("/healthz", "GET", self._health),
            _route("/faults", "GET", self._show_faults),
            _route("/faults", "PUT", self._add_fault),
            _route("/faults", "DELETE", self._clear_faults),
            _route("/calls", "GET", self._show_calls),
            _route("/calls", "DELETE", self._reset_calls),
            _route("/calls/recent", "GET", self._show_recent),
            _route("/latency", "GET", self._show_latency),
            _route("/latency", "PUT", self._set_latency),
            _route("/latency", "DELETE", self._clear_latency),
            _route("/training", "PUT", self._set_training),
            _route("/models/{id:path}", "PUT", self._set_model),
            _route("/webhook", "PUT", self._set_webhook),
            _route("/webhook", "DELETE", self._clear_webhook),
        ]

    async def _health(self, _request: Request) -> object:
        return {"status": "ok"}

    async def _show_faults(self, _request: Request) -> object:
        return {
            "faults": self._faults.shown(),
            "known": {name: kinds_at(name) for name in (*ENDPOINTS, RUNNING)},
        }

    async def _add_fault(self, request: Request) -> object:
        fault = self._faults.add(Fields(read_json(await request.body())))
        return {"id": fault.id, "endpoint": fault.endpoint, "kind": fault.kind}

    async def _clear_faults(self, request: Request) -> object:
        self._faults.clear(request.query_params.get("endpoint"))
        return {"faults": self._faults.shown()}

    async def _show_calls(self, _request: Request) -> object:
        return self._calls.shown()

    async def _reset_calls(self, _request: Request) -> object:
        self._calls.reset()
        return self._calls.shown()

    async def _show_recent(self, request: Request) -> object:
        return {"calls": self._calls.recent(request.query_params.get("endpoint"))}

    async def _show_latency(self, _request: Request) -> object:
        return self._latency.shown()

    async def _set_latency(self, request: Request) -> object:
        self._latency.put(Fields(read_json(await request.body())))
        return self._latency.shown()

    async def _clear_latency(self, _request: Request) -> object:
        self._latency.clear()
        return self._latency.shown()

    async def _set_training(self, request: Request) -> object:
        fields = Fields(read_json(await request.body()))
        fields.only(("seconds",))
        self._pace.seconds = fields.number("seconds", low=0, high=LONGEST_TRAINING)
        return {"seconds": self._pace.seconds}

    async def _set_model(self, request: Request) -> object:
        if not request.path_params["id"]:
            raise wrong_value("id", "expected a model's name")
        return self._catalog.set_shutdown(request.path_params["id"], Fields(read_json(await request.body())))

    async def _set_webhook(self, request: Request) -> object:
        self._hooks.put(Fields(read_json(await request.body())))
        return {"webhook": True}

    async def _clear_webhook(self, _request: Request) -> object:
        self._hooks.clear()
        return {"webhook": False}


def _route(path: str, method: str, action: Callable[[Request], Awaitable[object]]) -> Route:
    async def answer(request: Request) -> Response:
        try:
            reply = json_reply(await action(request))
        except ApiError as error:
            return Response(error.body(), error.status, media_type="application/json")
        return Response(reply.body, media_type=reply.media)

    return Route(path, answer, methods=[method])
