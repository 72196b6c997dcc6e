"""Secrets at rest pass through here again: what a key other than the first sealed, or nobody, is sealed by the first.

Run by `penstock maintain`, which may see all tenants. After a round without failures an earlier key can be taken out
of `PENSTOCK_SECRET_KEYS`.
"""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

import structlog

from infra.database import Connection, queries
from infra.sealed_headers import all_sealed, open_headers, seal_headers
from infra.secretbox import SecretBox
from schemas.errors import Misconfigured, Permanent

PAGE = 500
_log = structlog.get_logger("penstock.reseal")


async def reseal_endpoints(connection: Connection, box: SecretBox) -> int:
    """Seal secrets and headers of webhook endpoints again, where the first key did not; as the owner.

    Returns:
        How many endpoints were sealed again; those that could not be opened are logged.
    """
    sql = queries("maintain")
    place: tuple[str, UUID | None] = ("", None)
    sealed = 0
    while rows := await connection.fetch(sql.sealed_endpoints, *place, PAGE):
        for row in rows:
            try:
                fresh = _again(box, row)
            except (Misconfigured, Permanent) as error:
                _log.warning(
                    "reseal.not_opened",
                    endpoint=str(row["endpoint_id"]),
                    error=error.message,
                    next_step=error.fix or "rotate the endpoint's secret and set its headers again",
                )
                continue
            if fresh is not None:
                # Not where its owner changed it meanwhile: then the gateway has just sealed it.
                done = await connection.execute(
                    sql.reseal_endpoint,
                    row["tenant_id"],
                    row["endpoint_id"],
                    row["secrets"],
                    row["headers"],
                    *fresh,
                )
                sealed += int(done.rsplit(" ", 1)[-1])
        place = rows[-1]["tenant_id"], rows[-1]["endpoint_id"]
    return sealed


def _again(box: SecretBox, row: Any) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]] | None:
    """The secrets and headers of an endpoint, sealed by the first key; None when they are already."""
    tenant, endpoint = row["tenant_id"], str(row["endpoint_id"])
    blobs = [base64.b64decode(one["box"]) for one in row["secrets"]]
    if all(box.is_current(blob) for blob in blobs) and all_sealed(box, row["headers"]):
        return None
    secrets = [
        {
            **one,
            "box": base64.b64encode(box.seal(box.open(blob, tenant, endpoint), tenant, endpoint)).decode(),
        }
        for one, blob in zip(row["secrets"], blobs, strict=True)
    ]
    opened = open_headers(box, row["headers"], tenant=tenant, endpoint=endpoint)
    return secrets, seal_headers(box, opened, tenant=tenant, endpoint=endpoint)
