"""`penstock webhooks …`: endpoints are registered, looked at and tried out through the gateway."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from cli.client_http import open_api, part, read_json_option
from cli.client_listen import listen
from cli.client_replay import replay
from cli.show import AsJson, print_fields, print_rows
from schemas.errors import BadInput

app = typer.Typer(no_args_is_help=True, help="Webhooks: where results are sent. Needs the admin key.")
COLUMNS = ("id", "url", "types", "status", "status_reason", "description")
DELIVERIES = ("id", "type", "status", "attempts", "status_code", "elapsed_ms", "created_at", "error")
ATTEMPTS = ("id", "type", "attempt", "at", "status_code", "elapsed_ms", "error", "response_head")
Id = Annotated[str, typer.Argument(help="The endpoint's id, as `penstock webhooks list` shows it.")]


@app.command("add")
def add(
    url: Annotated[str, typer.Argument(help="Where messages are sent.")],
    *,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", "-t", help="An event type, family.* or *; give it several times. * unless given."
        ),
    ] = None,
    condition: Annotated[
        str | None, typer.Option("--filter", help="Condition on the contents as JSON.")
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    secret: Annotated[
        str | None, typer.Option(envvar="PENSTOCK_WEBHOOK_SECRET", help="whsec_…; one is made unless given.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", help="NAME: VALUE sent with every message; several times."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, max=60, help="Seconds for one attempt.")] = 15.0,
    rate: Annotated[
        float | None, typer.Option(min=0.01, max=10_000, help="Messages per second at most.")
    ] = None,
    payload: Annotated[str, typer.Option(help="full, thin (ids only), or auto: thin above 20 kB.")] = "auto",
    callback_prefix: Annotated[
        bool, typer.Option("--callback-prefix", help="The URL is the prefix of questions' callback URLs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register an endpoint and show its secret, this once."""
    body: dict[str, Any] = {
        "url": url,
        "types": types or ["*"],
        "payload": payload,
        "description": description,
        "callback_prefix": callback_prefix,
        "headers": dict(_header(one) for one in header or []),
        "timeout_seconds": timeout,
        "rate_limit": rate,
    }
    if secret:
        body["secret"] = secret
    if condition is not None:
        body["filter"] = read_json_option(condition, "--filter")
    with open_api(admin=True) as api:
        made = api.call("POST", "/v1/webhooks", body)
    print_fields(
        {name: made[name] for name in ("id", "url", "types", "secret")} if not as_json else made,
        as_json=as_json,
    )
    if not as_json:
        typer.echo(
            f"\nKeep the secret now: it is not shown again. Try it: penstock webhooks test {made['id']}"
        )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise BadInput(
            f"--header: {text[:60]!r} is not NAME: VALUE", field="--header", fix="write it like 'X-Token: …'"
        )
    return name.strip(), value.strip()


@app.command("list")
def list_all(*, as_json: AsJson = False) -> None:
    """List the endpoints."""
    with open_api(admin=True) as api:
        rows = list(api.pages("/v1/webhooks"))
    print_rows(rows, COLUMNS, as_json=as_json, empty="No webhooks. `penstock webhooks add URL` makes one.")


@app.command("enable")
def enable(webhook: Id, *, as_json: AsJson = False) -> None:
    """Send to a disabled or throttled endpoint again."""
    _set_status(webhook, "active", as_json=as_json)


@app.command("disable")
def disable(webhook: Id, *, as_json: AsJson = False) -> None:
    """Send an endpoint nothing until it is enabled; what waits for it ends in the dead letters."""
    _set_status(webhook, "disabled", as_json=as_json)


def _set_status(webhook: str, status: str, *, as_json: bool) -> None:
    with open_api(admin=True) as api:
        changed = api.call("PATCH", f"/v1/webhooks/{part(webhook)}", {"status": status})
    shown = changed if as_json else {name: changed[name] for name in ("id", "url", "status")}
    print_fields(shown, as_json=as_json)


@app.command("remove")
def remove(webhook: Id) -> None:
    """Remove an endpoint with its deliveries."""
    with open_api(admin=True) as api:
        api.call("DELETE", f"/v1/webhooks/{part(webhook)}")
    typer.echo("removed")


@app.command("rotate")
def rotate(
    webhook: Id,
    overlap: Annotated[
        float, typer.Option(min=0, max=7 * 24, help="Hours for which the secret before goes on signing.")
    ] = 24.0,
    *,
    as_json: AsJson = False,
) -> None:
    """Give an endpoint a new secret and show it, this once."""
    with open_api(admin=True) as api:
        made = api.call("POST", f"/v1/webhooks/{part(webhook)}/rotate", {"overlap_seconds": overlap * 3600})
    print_fields(made if as_json else {"id": made["id"], "secret": made["secret"]}, as_json=as_json)


@app.command("test")
def send_test(
    webhook: Id,
    wait: Annotated[
        float, typer.Option(min=0, max=120, help="Seconds to wait for the outcome; 0 does not wait.")
    ] = 30.0,
    *,
    as_json: AsJson = False,
) -> None:
    """Send a `webhook.test` message, signed like any other, and show what became of it; exit 1 when it did not arrive."""
    with open_api(admin=True) as api:
        sent = api.call("POST", f"/v1/webhooks/{part(webhook)}/test")
        if not wait:
            print_fields(sent, as_json=as_json)
            return
        path = f"/v1/deliveries/{part(sent['delivery_id'])}"
        end = time.monotonic() + wait
        while (found := api.call("GET", path))["status"] == "pending" and time.monotonic() < end:
            time.sleep(0.1)
    tried = found["tried"][-1] if found["tried"] else {}
    names = ("status_code", "elapsed_ms", "error", "response_head")
    outcome = {
        "delivery_id": found["id"],
        "webhook_id": found["message_id"],
        "status": found["status"],
        "reason": (found["error"] or {}).get("message"),
        "next_at": found["next_at"],
        **{name: tried.get(name) for name in names},
    }
    print_fields(outcome, as_json=as_json)
    if found["status"] != "delivered":
        raise typer.Exit(1)


@app.command("deliveries")
def deliveries(
    webhook: Id,
    status: Annotated[str | None, typer.Option(help="pending, retrying, delivered or dead.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many messages.")] = 50,
    attempts: Annotated[
        bool,
        typer.Option("--attempts", help="A line for each attempt: status, time, error, head of the reply."),
    ] = False,
    *,
    as_json: AsJson = False,
) -> None:
    """List the messages to an endpoint, newest first, with how the last attempt went."""
    with open_api(admin=True) as api:
        path = f"/v1/webhooks/{part(webhook)}/deliveries"
        rows = api.call("GET", path, status=status, limit=limit)["items"]
    if attempts:
        tried = [{"id": row["id"], "type": row["type"], **one} for row in rows for one in row["tried"]]
        print_rows(tried, ATTEMPTS, as_json=as_json, empty="No attempts.")
        return
    if not as_json:
        rows = [{**_last(row), **row, "error": _reason(row["error"])} for row in rows]
    print_rows(rows, DELIVERIES, as_json=as_json, empty="No deliveries.")


def _last(row: dict[str, Any]) -> dict[str, Any]:
    return dict(row["tried"][-1]) if row["tried"] else {}


def _reason(error: dict[str, Any] | None) -> str | None:
    return None if error is None else f"{error['code']}: {error['message']}"


app.command("replay")(replay)
app.command("listen")(listen)
