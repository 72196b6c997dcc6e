"""Webhook endpoints and their deliveries are managed here; messages themselves are made by effects and sent by workers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from infra import endpoints, replays
from infra.deliveries import list_deliveries, show_delivery
from infra.endpoints import Endpoint
from infra.keys import Scope
from infra.limits import check_endpoints
from infra.replays import MOST, Selection
from producers.gateway.access import Allow, Caller
from producers.gateway.addresses import as_uuid
from producers.gateway.body import read_model
from producers.gateway.idempotency import Remembered
from producers.gateway.openapi import answers, takes
from producers.gateway.paging import PageQuery, Paging, decode_cursor, encode_cursor, page
from producers.gateway.resources import gateway_of
from producers.gateway.respond import json_response, no_content
from producers.gateway.shapes.webhooks import (
    DeliveryAccepted,
    DeliveryPage,
    DeliveryView,
    ReplayBody,
    ReplayView,
    RotateBody,
    WebhookBody,
    WebhookChange,
    WebhookCreated,
    WebhookPage,
    WebhookView,
)
from schemas.states import DeliveryState

router = APIRouter(tags=["webhooks"], route_class=Remembered)
Admin = Annotated[Caller, Depends(Allow(Scope.ADMIN))]
Watcher = Annotated[Caller, Depends(Allow(Scope.ADMIN, Scope.OPS))]
ONE = "/v1/webhooks/{webhook_id}"


@router.post(
    "/v1/webhooks",
    status_code=201,
    responses=answers(WebhookCreated, 201),
    openapi_extra=takes(WebhookBody, {"url": "https://app.example/hooks", "types": ["document.*"]}),
)
async def create(request: Request, caller: Admin) -> Response:
    """Add an endpoint; the answer is the only one that shows its secret."""
    gateway = gateway_of(request)
    body = await read_model(request, WebhookBody)
    gateway.egress.check_url(body.url)
    wanted = body.model_dump(exclude={"secret", "types"})
    async with gateway.database.transaction(caller.tenant_id) as connection:
        await check_endpoints(connection, caller.tenant_id, caller.limits)
        made = await endpoints.create_endpoint(
            connection,
            gateway.need_box(),
            caller.tenant_id,
            Endpoint(**wanted, types=tuple(body.types)),
            body.secret,
        )
    return json_response(made, 201, {"location": f"/v1/webhooks/{made['id']}"})


@router.get("/v1/webhooks", responses=answers(WebhookPage))
async def listing(request: Request, caller: Watcher, query: Paging) -> Response:
    """The endpoints, oldest first."""
    place = decode_cursor(query.cursor, [str])
    after = None if place is None else as_uuid(place[0])
    async with gateway_of(request).database.transaction(caller.tenant_id, readonly=True) as connection:
        items = await endpoints.list_endpoints(connection, caller.tenant_id, after=after, limit=query.limit)
    return json_response(page(items, query.limit, ["id"]))


@router.get(ONE, responses=answers(WebhookView))
async def show(request: Request, caller: Watcher, webhook_id: str) -> Response:
    """One endpoint."""
    async with gateway_of(request).database.transaction(caller.tenant_id, readonly=True) as connection:
        return json_response(await endpoints.show_endpoint(connection, caller.tenant_id, as_uuid(webhook_id)))


@router.patch(ONE, responses=answers(WebhookView), openapi_extra=takes(WebhookChange, {"status": "disabled"}))
async def change(request: Request, caller: Admin, webhook_id: str) -> Response:
    """Change an endpoint, disable or enable it; what is left out stays."""
    gateway = gateway_of(request)
    body = await read_model(request, WebhookChange)
    changes = body.model_dump(exclude_unset=True)
    if body.url is not None:
        gateway.egress.check_url(body.url)
    box = gateway.need_box() if body.headers else None
    async with gateway.database.transaction(caller.tenant_id) as connection:
        changed = await endpoints.change_endpoint(
            connection, box, caller.tenant_id, as_uuid(webhook_id), changes
        )
    return json_response(changed)


@router.delete(ONE, status_code=204, responses=answers(None, 204))
async def delete(request: Request, caller: Admin, webhook_id: str) -> Response:
    """Remove an endpoint with its deliveries."""
    async with gateway_of(request).database.transaction(caller.tenant_id) as connection:
        await endpoints.delete_endpoint(connection, caller.tenant_id, as_uuid(webhook_id))
    return no_content()


@router.post(
    ONE + "/rotate",
    responses=answers(WebhookCreated),
    openapi_extra=takes(RotateBody, {"overlap_seconds": 3600}),
)
async def rotate(request: Request, caller: Admin, webhook_id: str) -> Response:
    """Give an endpoint a new secret; the one before signs too until the overlap has passed."""
    gateway = gateway_of(request)
    body = await read_model(request, RotateBody)
    async with gateway.database.transaction(caller.tenant_id) as connection:
        rotated = await endpoints.rotate_secret(
            connection,
            gateway.need_box(),
            caller.tenant_id,
            as_uuid(webhook_id),
            secret=body.secret,
            overlap=body.overlap_seconds,
        )
    return json_response(rotated)


@router.post(ONE + "/test", status_code=202, responses=answers(DeliveryAccepted, 202))
async def test(request: Request, caller: Admin, webhook_id: str) -> Response:
    """Send a `webhook.test` message to an endpoint, signed like any other."""
    gateway = gateway_of(request)
    async with gateway.database.transaction(caller.tenant_id) as connection:
        delivery_id, jobs = await endpoints.send_test(connection, caller.tenant_id, as_uuid(webhook_id))
    await gateway.bus.push(jobs)
    return json_response({"delivery_id": delivery_id}, 202)


class DeliveryQuery(PageQuery):
    """Which deliveries to list."""

    status: DeliveryState | None = None


@router.get(ONE + "/deliveries", responses=answers(DeliveryPage))
async def deliveries(
    request: Request, caller: Watcher, webhook_id: str, query: Annotated[DeliveryQuery, Query()]
) -> Response:
    """The messages to an endpoint with every attempt, newest first; never their bodies."""
    place = decode_cursor(query.cursor, [str])
    async with gateway_of(request).database.transaction(caller.tenant_id, readonly=True) as connection:
        items = await list_deliveries(
            connection,
            caller.tenant_id,
            as_uuid(webhook_id),
            status=query.status,
            after=None if place is None else as_uuid(place[0]),
            limit=query.limit,
        )
    return json_response(page(items, query.limit, ["id"]))


@router.post(
    ONE + "/replay",
    status_code=202,
    responses=answers(ReplayView, 202),
    openapi_extra=takes(ReplayBody, {"status": ["dead"], "since": "2026-11-23T00:00:00Z", "dry_run": True}),
)
async def replay_many(request: Request, caller: Admin, webhook_id: str) -> Response:
    """Send messages again that match: that ended, or with `missing`, that were never sent. Once per `nonce`."""
    gateway = gateway_of(request)
    body = await read_model(request, ReplayBody)
    place = decode_cursor(body.cursor, [str])
    selection = Selection(
        tuple(body.status), tuple(body.types), body.filter, body.error, body.since, body.until, body.missing,
        None if place is None else as_uuid(place[0]),
    )  # fmt: skip
    async with gateway.database.transaction(caller.tenant_id) as connection:
        done, jobs = await replays.replay(
            connection,
            caller.tenant_id,
            as_uuid(webhook_id),
            selection,
            actor=caller.key_id,
            nonce=body.nonce,
            per_second=body.per_second,
            dry_run=body.dry_run,
            most=MOST,
        )
    await gateway.bus.push(jobs)
    shown = {name: getattr(done, name) for name in ReplayView.model_fields if name != "next_cursor"}
    cursor = None if done.after is None else encode_cursor([str(done.after)])
    return json_response({**shown, "next_cursor": cursor}, 202)


@router.get("/v1/deliveries/{delivery_id}", responses=answers(DeliveryView))
async def delivery(request: Request, caller: Watcher, delivery_id: str) -> Response:
    """One message with every attempt; never its body."""
    async with gateway_of(request).database.transaction(caller.tenant_id, readonly=True) as connection:
        return json_response(await show_delivery(connection, caller.tenant_id, as_uuid(delivery_id)))


@router.post("/v1/deliveries/{delivery_id}/replay", status_code=202, responses=answers(DeliveryAccepted, 202))
async def replay(request: Request, caller: Admin, delivery_id: str) -> Response:
    """Send a message that has ended, well or badly, again under the same `webhook-id`."""
    gateway = gateway_of(request)
    async with gateway.database.transaction(caller.tenant_id) as connection:
        jobs = await replays.replay_delivery(
            connection, caller.tenant_id, as_uuid(delivery_id), actor=caller.key_id
        )
    await gateway.bus.push(jobs)
    return json_response({"delivery_id": delivery_id}, 202)
