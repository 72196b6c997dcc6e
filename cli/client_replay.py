"""`penstock webhooks replay`: messages that ended, or were never sent, are sent again through the gateway, page by page."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

import typer

from cli.client_http import Api, open_api, part, read_json_option
from cli.show import AsJson, print_fields
from schemas.errors import BadInput

_AGO = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str, option: str, now: datetime) -> str:
    """A moment as RFC 3339: given as such, in local time without a zone, or as so long ago (``90m``, ``2d``).

    Raises:
        BadInput: it is neither; names the option.
    """
    if (ago := _AGO.fullmatch(text)) is not None:
        return (now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except ValueError:
        raise BadInput(
            f"{option}: {text[:40]!r} is no moment",
            field=option,
            fix="write 2026-11-23T12:00:00Z, 90m, 6h or 2d",
        ) from None


def replay(
    delivery: Annotated[
        str | None, typer.Argument(help="One delivery's id; leave it out and give --webhook for many.")
    ] = None,
    *,
    webhook: Annotated[str | None, typer.Option(help="The endpoint whose messages are sent again.")] = None,
    status: Annotated[
        list[str] | None, typer.Option(help="dead or delivered; twice for both. dead unless given.")
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", "-t", help="An event type, family.* or *; several times.")
    ] = None,
    condition: Annotated[
        str | None, typer.Option("--filter", help="Condition on the contents as JSON.")
    ] = None,
    error: Annotated[str | None, typer.Option(help="The last attempt's error, such as timeout.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Written at or after: a moment, or 90m, 6h, 2d ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Written before.")] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Instead: what the endpoint was never sent. Needs --since.")
    ] = False,
    per_second: Annotated[float, typer.Option(min=0.01, help="Messages per second.")] = 50.0,
    nonce: Annotated[
        str | None, typer.Option(help="A name for this replay: the same one never replays twice.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send messages again, under the same `webhook-id`: one, or all of an endpoint that match."""
    if (delivery is None) is (webhook is None):
        raise BadInput(
            "give one delivery's id, or --webhook with an endpoint's",
            field="--webhook",
            fix="`penstock webhooks list` shows endpoints, `penstock webhooks deliveries ID` their messages",
        )
    if missing and since is None:
        raise BadInput("--missing needs --since", field="--since", fix="say how far back to look: --since 2d")
    now = datetime.now(UTC)
    with open_api(admin=True) as api:
        if delivery is not None:
            sent = api.call("POST", f"/v1/deliveries/{part(delivery)}/replay")
            print_fields(sent, as_json=as_json)
            return
        body: dict[str, Any] = {
            "types": types or ["*"], "missing": missing, "per_second": per_second, "dry_run": dry_run, "error": error,
            "since": None if since is None else moment(since, "--since", now),
            "until": None if until is None else moment(until, "--until", now),
            "filter": None if condition is None else read_json_option(condition, "--filter"),
        }  # fmt: skip
        if status:
            body["status"] = status
        print_fields(_pages(api, str(webhook), body, nonce or str(uuid4())), as_json=as_json)


def _pages(api: Api, webhook: str, body: dict[str, Any], nonce: str) -> dict[str, Any]:
    """All pages of a replay, each under its own nonce, as one result."""
    total: dict[str, Any] = {"nonce": nonce, "messages": 0, "by_type": {}, "seconds": 0.0, "repeated": False}
    cursor: str | None = None
    for number in range(1_000_000):
        page = api.call(
            "POST",
            f"/v1/webhooks/{part(webhook)}/replay",
            {**body, "nonce": f"{nonce}/{number}", "cursor": cursor},
        )
        total["messages"] += page["messages"]
        total["seconds"] = max(total["seconds"], page["seconds"])
        total["repeated"] = page["repeated"] if number == 0 else total["repeated"] and page["repeated"]
        for name, count in page["by_type"].items():
            total["by_type"][name] = total["by_type"].get(name, 0) + count
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return {**total, "dry_run": body["dry_run"]}
