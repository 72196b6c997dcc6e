"""`penstock webhooks listen`: messages arrive here from the deliver workers, are verified, and are shown to a developer.

The receiver registers itself for as long as it runs, so that it can be tried out with one command.
"""

from __future__ import annotations

import hmac
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any

import typer

from cli.client_http import Api, open_api
from cli.show import print_json
from schemas.errors import Misconfigured
from workers.deliver.sign import signature

TOLERANCE = 300.0
"""Seconds by which a timestamp may be off (Standard Webhooks 1.0)."""
DESCRIPTION = "penstock webhooks listen"
MAX_BODY = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """A message that arrived; `problem` says why it is not to be trusted."""

    headers: Mapping[str, str]
    body: bytes
    problem: str | None


def verify(key: bytes, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    """Why a message is not to be trusted, or None.

    Args:
        key: the bytes inside the ``whsec_`` secret.
        headers: by lower-case name.
        body: as it came.
        now: Unix seconds.
    """
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message_id or not timestamp.isdecimal():
        return "webhook-id or webhook-timestamp is missing"
    if abs(now - int(timestamp)) > TOLERANCE:
        return "the timestamp is more than five minutes off"
    wanted = signature(key, message_id, int(timestamp), body)
    if any(hmac.compare_digest(wanted, one) for one in headers.get("webhook-signature", "").split()):
        return None
    return "no signature fits"


@contextmanager
def receiver(
    host: str, port: int, key: Callable[[], bytes], show: Callable[[Message], None]
) -> Iterator[ThreadingHTTPServer]:
    """A receiver that answers 204 to what verifies and 401 to what does not.

    Raises:
        Misconfigured: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(min(length, MAX_BODY))
            headers = {name.lower(): value for name, value in self.headers.items()}
            problem = verify(key(), headers, body, time.time())
            self.send_response(204 if problem is None else 401)
            self.send_header("content-length", "0")
            self.end_headers()
            show(Message(headers, body, problem))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing: messages are shown, not requests."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {host}:{port}: {error.strerror}", field="--port", fix="give another --port"
        ) from None
    with server:
        yield server


def listen(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 picks a free port.")] = 8430,
    host: Annotated[
        str, typer.Option(help="The address to listen on, which workers must reach.")
    ] = "127.0.0.1",
    types: Annotated[
        list[str] | None, typer.Option("--type", "-t", help="An event type, family.* or *; several times.")
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="PENSTOCK_WEBHOOK_SECRET",
            help="Of an endpoint that is registered already; nothing is registered then.",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option(min=0, help="Stop after so many messages; 0 goes on until Ctrl-C.")
    ] = 0,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per message.")] = False,
) -> None:
    """Receive messages here, verify their signatures and show them; registered while this runs."""
    from infra.signing_secrets import parse_secret

    keys = [parse_secret(secret)] if secret else []
    seen = 0

    def show(message: Message) -> None:
        nonlocal seen
        _show(message, as_json=as_json)
        seen += 1
        if count and seen >= count:
            # From another thread than serve_forever's, which is what shutdown wants.
            server.shutdown()

    with receiver(host, port, lambda: keys[0], show) as server, _stopped_by_signals():
        url = f"http://{host}:{server.server_address[1]}/"
        if keys:
            typer.echo(f"listening on {url}", err=True)
            server.serve_forever(poll_interval=0.1)
            return
        with open_api(admin=True) as api:
            remove_leftovers(api, url)
            made = api.call(
                "POST",
                "/v1/webhooks",
                {"url": url, "types": types or ["*"], "description": DESCRIPTION},
            )
            keys.append(parse_secret(made["secret"]))
            typer.echo(f"listening on {url} as webhook {made['id']}; Ctrl-C ends and removes it", err=True)
            try:
                server.serve_forever(poll_interval=0.1)
            finally:
                api.call("DELETE", f"/v1/webhooks/{made['id']}")


def remove_leftovers(api: Api, url: str) -> None:
    """What an earlier run at this address left behind because it was killed."""
    for one in list(api.pages("/v1/webhooks")):
        if (one["url"], one["description"]) == (url, DESCRIPTION):
            api.call("DELETE", f"/v1/webhooks/{one['id']}")


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how this ends, after the endpoint was removed; they are no failure."""

    def stop(signum: int, frame: object) -> None:
        del signum, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(message: Message, *, as_json: bool) -> None:
    try:
        body: Any = json.loads(message.body)
    except ValueError:
        body = message.body[:200].decode("utf-8", "replace")
    name = message.headers.get("webhook-id", "-")
    if as_json:
        print_json(
            {
                "webhook_id": name,
                "verified": message.problem is None,
                "problem": message.problem,
                "body": body,
            }
        )
        return
    mark = (
        typer.style("✓", fg="green")
        if message.problem is None
        else typer.style(f"✗ {message.problem}", fg="red")
    )
    kind = body.get("type", "?") if isinstance(body, dict) else "?"
    typer.echo(f"{mark} {typer.style(kind, bold=True)}  {typer.style(name, dim=True)}")
    data = body.get("data") if isinstance(body, dict) else body
    typer.echo("  " + json.dumps(data, indent=2, ensure_ascii=False).replace("\n", "\n  "))
