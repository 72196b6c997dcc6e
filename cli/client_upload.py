"""Events of a load pass through here to the gateway in batches, again and again until each has its result.

Every event has an id of its own content, so that a repetition after a lost answer, and a second run after an
interruption, enter nothing twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cli.client_http import Api, GatewayRefused
from producers.files import Bad, Item
from schemas.errors import Unavailable

BATCH_ITEMS = 200
BATCH_BYTES = 4 * 1024 * 1024
ATTEMPTS = 6
BATCH = "application/cloudevents-batch+json"
SINGLE = "application/cloudevents+json"
LATER = frozenset({429, 502, 503, 504})

Progress = Callable[[int], None]


@dataclass(slots=True)
class Load:
    """What became of a load so far.

    Attributes:
        accepted: label → the ledger's id.
        duplicates: what was published before; (item, the ledger's id).
        unchanged: how many of the duplicates are what is there now.
        refused: label, error code, field and message of what was not taken.
    """

    accepted: dict[str, str] = field(default_factory=dict)
    duplicates: list[tuple[Item, str]] = field(default_factory=list)
    unchanged: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, label: str, error: Mapping[str, Any]) -> None:
        """Note why something was not taken."""
        self.refused.append(
            {
                "what": label,
                "code": error.get("code"),
                "field": error.get("field"),
                "why": error.get("message") or error.get("detail"),
                "fix": error.get("fix"),
            }
        )


def upload(
    api: Api,
    items: Iterable[Item | Bad],
    load: Load,
    *,
    progress: Progress = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Publish everything; results are added to `load` as they come.

    Raises:
        Unavailable: the gateway stayed away. Running the same again goes on where this ended.
        GatewayRefused: the key may not publish, or the request as a whole was refused.
    """
    for batch in batches(items, load, progress):
        bodies = [body for _, body in batch]
        if len(batch) == 1 and len(bodies[0]) > BATCH_BYTES:
            answer = _send(api, bodies[0], SINGLE, sleep)
        else:
            answer = _send(api, b"[" + b",".join(bodies) + b"]", BATCH, sleep)
        for (item, _), result in zip(batch, answer["results"], strict=True):
            _note(load, item, result)
        progress(len(batch))


def _note(load: Load, item: Item, result: Mapping[str, Any]) -> None:
    if result["status"] == "accepted":
        load.accepted[item.label] = result["event_id"]
    elif result["status"] == "duplicate":
        load.duplicates.append((item, result["event_id"]))
    else:
        load.refuse(item.label, result["error"])


def batches(
    items: Iterable[Item | Bad], load: Load, progress: Progress
) -> Iterator[list[tuple[Item, bytes]]]:
    """Events in groups that the gateway takes, as JSON; what is bad already is noted and left out."""
    group: list[tuple[Item, bytes]] = []
    size = 0
    for item in items:
        if isinstance(item, Bad):
            load.refuse(item.label, item.error.as_dict())
            progress(1)
            continue
        body = json.dumps(item.event).encode()
        if group and (len(group) >= BATCH_ITEMS or size + len(body) > BATCH_BYTES):
            yield group
            group, size = [], 0
        group.append((item, body))
        size += len(body)
    if group:
        yield group


def _send(api: Api, content: bytes, kind: str, sleep: Callable[[float], None]) -> Any:
    wait = 0.2
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return api.send("/v1/events", content, kind)
        except GatewayRefused as error:
            if "results" in error.problem:  # one event, refused
                return error.problem
            if error.http_status not in LATER or attempt == ATTEMPTS:
                raise
        except Unavailable:
            if attempt == ATTEMPTS:
                raise
        sleep(wait)
        wait *= 2
    raise AssertionError("the last attempt returns or raises")


def publish_again(
    api: Api, collection: str, load: Load, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Look at documents that were published before: what is there now must be what was given.

    A file that went back to an earlier text has the id of that text, and so has one whose collection was dropped. Such a
    document is published again, under an id that also names the event that came last.
    """
    if not load.duplicates:
        return
    held = {one["id"]: one for one in _documents(api, collection)}
    while load.duplicates:
        again: list[Item | Bad] = []
        for item, event_id in load.duplicates:
            verdict = _stands(api, item, event_id, held.get(item.label))
            if verdict is None:
                load.unchanged += 1
            elif isinstance(verdict, str):
                first = item.event["id"].split("~")[0]
                again.append(Item(item.label, {**item.event, "id": f"{first}~{verdict}"}))
            else:
                load.refuse(item.label, verdict)
        load.duplicates.clear()
        upload(api, again, load, sleep=sleep)
        # Dropped more than once: each time it came under another id. Of the others the version is under way already.
        dropped = [one for one in load.duplicates if one[0].label not in held]
        load.unchanged += len(load.duplicates) - len(dropped)
        load.duplicates[:] = dropped


def _documents(api: Api, collection: str) -> Iterator[dict[str, Any]]:
    for status in (None, "purged"):
        try:
            yield from api.pages(f"/v1/collections/{collection}/documents", limit=1000, status=status)
        except GatewayRefused as error:
            if error.http_status != 404:
                raise


def _stands(
    api: Api, item: Item, event_id: str, row: Mapping[str, Any] | None
) -> str | Mapping[str, Any] | None:
    """What to do about a repetition: nothing (None), publish again after a version (its id), or tell its error."""
    if row is None:
        # Not decided yet, unless its event has ended: then it died, or its collection was dropped, and has to come again.
        event = api.call("GET", f"/v1/events/{event_id}")
        return event_id if event["status"] in {"dead", "done"} else None
    if row["event_id"] == event_id:
        return row["error"] if row["status"] == "failed" else None
    newest = api.call("GET", f"/v1/events/{row['event_id']}")
    same = newest["source"] == item.event["source"] and newest["id"].split("~")[0] == item.event["id"]
    return None if same else str(row["event_id"])


def wait_until_done(
    api: Api,
    load: Load,
    kind: str,
    seconds: float,
    *,
    progress: Progress = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Wait until what was accepted is done; what died is noted as refused.

    Returns:
        How many were still under way when the time was up.
    """
    waiting = {event_id: label for label, event_id in load.accepted.items()}
    end, pause = clock() + seconds, 0.05
    while waiting and clock() < end:
        before = len(waiting)
        unseen = set(waiting)
        for event in api.pages("/v1/events", type=kind, limit=min(1000, max(10, 2 * len(waiting)))):
            unseen.discard(event["event_id"])
            if event["event_id"] in waiting and event["status"] in {"done", "dead"}:
                label = waiting.pop(event["event_id"])
                if event["status"] == "dead":
                    load.refuse(label, event["error"] or {"code": "dead"})
            if not unseen:
                break
        progress(before - len(waiting))
        if waiting:
            sleep(pause)
            pause = min(1.0, pause * 1.5)
    return len(waiting)
