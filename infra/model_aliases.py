"""Aliases point to models; here a person points one elsewhere or back, and what it meant before is kept.

Promotion by the evaluation happens in the train wing; this is the door for people (CLI, gateway).
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from infra import outbox
from infra.database import Connection, Database, queries
from infra.outbox import Said
from schemas.errors import Conflict, NotFound
from schemas.work import Publication, Pushable


async def list_aliases(database: Database, tenant_id: str) -> list[dict[str, Any]]:
    """What the tenant's aliases mean now: alias, model, previous, run_id, changed_at."""
    async with database.transaction(tenant_id, readonly=True) as connection:
        rows = await connection.fetch(queries("training_store").aliases, tenant_id)
    return [dict(row) for row in rows]


async def alias_history(
    database: Database, tenant_id: str, alias: str, limit: int = 100
) -> list[dict[str, Any]]:
    """What an alias has meant, newest first: model, previous, run_id, reason, actor, at."""
    async with database.transaction(tenant_id, readonly=True) as connection:
        rows = await connection.fetch(queries("training_store").alias_history, tenant_id, alias, limit)
    return [dict(row) for row in rows]


async def list_models(database: Database, tenant_id: str) -> list[dict[str, Any]]:
    """The tenant's tuned models with their runs and the aliases that point to them."""
    async with database.transaction(tenant_id, readonly=True) as connection:
        rows = await connection.fetch(queries("training_store").models, tenant_id)
    return [dict(row) for row in rows]


async def promote_run(
    database: Database, tenant_id: str, run_id: UUID, *, default: str, actor: str
) -> tuple[str, list[Pushable]]:
    """Point the run's alias at its model although, or because, the evaluation said otherwise.

    Returns:
        The alias, and what to push.

    Raises:
        NotFound: the tenant has no such run.
        Conflict: the run has no model, is not over, or its model serves already.
    """
    sql = queries("training_store")
    async with database.transaction(tenant_id) as connection:
        run = await connection.fetchrow(sql.run, tenant_id, run_id)
        if run is None:
            raise NotFound("there is no such training run", field="run_id")
        if run["model"] is None or run["ended_at"] is None:
            raise Conflict("the training run has no model yet", field="run_id")
        await connection.execute(queries("train").alias_turn, tenant_id, run["alias"])
        now = await connection.fetchrow(sql.lock_alias, tenant_id, run["alias"])
        previous = default if now is None else now["model"]
        if previous == run["model"]:
            raise Conflict("the alias points to this model already", field="run_id")
        alias, model, train = run["alias"], run["model"], queries("train")
        await connection.execute(train.set_alias, tenant_id, alias, model, previous, run_id)
        await connection.execute(
            train.add_alias_change, tenant_id, alias, model, previous, run_id, "by hand", actor
        )
        await connection.execute(sql.audit, tenant_id, actor, "model.promote", alias, {"model": model})
        data = {"run_id": str(run_id), "alias": alias, "model": model, "previous": previous}
        said = [Said(tenant_id, Publication("model.promoted", data, subject=alias))]
        return alias, await outbox.write(connection, said)


async def rollback_alias(
    database: Database, tenant_id: str, alias: str, *, reason: str, actor: str
) -> tuple[str, list[Pushable]]:
    """Point an alias at the model that it meant before the present one.

    Rolling back again goes back further, as far as the history goes.

    Returns:
        The model that the alias means now, and what to push.

    Raises:
        NotFound: the alias has never been changed.
        Conflict: there is nothing before the present model.
    """
    async with database.transaction(tenant_id) as connection:
        model, publication = await roll_back_on(connection, tenant_id, alias, reason=reason, actor=actor)
        return model, await outbox.write(connection, [Said(tenant_id, publication)])


async def roll_back_on(
    connection: Connection,
    tenant_id: str,
    alias: str,
    *,
    reason: str,
    actor: str,
    only_from: str | None = None,
) -> tuple[str, Publication]:
    """Point an alias back within somebody's transaction.

    Args:
        connection: acts for the tenant.
        tenant_id: whose.
        alias: which.
        reason: for its history.
        actor: for the audit log.
        only_from: the model that it must mean now; any unless given.

    Returns:
        The model that the alias means now, and what to say.

    Raises:
        NotFound: the alias has never been changed.
        Conflict: there is nothing before the present model, or it means another one than it must.
    """
    sql, train = queries("training_store"), queries("train")
    await connection.execute(train.alias_turn, tenant_id, alias)
    now = await connection.fetchrow(sql.lock_alias, tenant_id, alias)
    if now is None:
        raise NotFound(f"the alias {alias} has never been changed", field="alias")
    if now["previous"] is None or (only_from is not None and now["model"] != only_from):
        raise Conflict(f"the alias {alias} has no previous model", field="alias")
    model = str(now["previous"])
    # What the previous model had replaced in its time; the present one is not gone back to by a second rollback.
    before = await connection.fetchval(sql.last_change, tenant_id, alias, model)
    await connection.execute(train.set_alias, tenant_id, alias, model, before, None)
    await connection.execute(train.add_alias_change, tenant_id, alias, model, before, None, reason, actor)
    await connection.execute(sql.audit, tenant_id, actor, "model.rollback", alias, {"model": model})
    data = {"alias": alias, "model": model, "previous": now["model"], "reason": reason}
    return model, Publication("model.rolled_back", data, subject=alias)
