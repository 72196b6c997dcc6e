"""Examples go in and a better model comes out: the threshold fires, the run is watched, the evaluation is shown."""

from __future__ import annotations

import asyncio
from typing import Any

from cli.demo.examples import DATASET, THRESHOLD, examples
from cli.demo.gateway import Gateway
from cli.demo.screen import Screen
from infra.database import Connection
from schemas.errors import CallFailed
from schemas.states import RunState, is_final

WITHIN = 90.0
BATCH = 40


async def teach(gateway: Gateway, screen: Screen, *, base_model: str) -> int:
    """Make the dataset and send its examples; returns how many."""
    settings = {"threshold": THRESHOLD, "base_model": base_model, "approval": "automatic"}
    await gateway.call("PUT", f"/v1/datasets/{DATASET}", settings)
    every = examples()
    with screen.progress("sending examples", len(every)) as done:
        for start in range(0, len(every), BATCH):
            await gateway.publish("example.recorded", every[start : start + BATCH])
            done(min(len(every), start + BATCH))
    return len(every)


async def watch(connection: Connection, screen: Screen, tenant: str) -> dict[str, Any]:
    """Follow the run that the threshold triggers until it ends.

    Raises:
        CallFailed: no run began, or it ended without a decision.
    """
    deadline = asyncio.get_running_loop().time() + WITHIN
    shown: str | None = None
    while True:
        run = await connection.fetchrow(
            "SELECT run_id, status, model, error, reason FROM training_runs WHERE tenant_id = $1 ORDER BY started_at LIMIT 1",
            tenant,
        )
        if run is not None and run["status"] != shown:
            shown = run["status"]
            screen.say(f"   run {run['run_id']}: {shown}")
        if run is not None and is_final(RunState(run["status"])):
            break
        if asyncio.get_running_loop().time() > deadline:
            raise CallFailed(
                f"the training run did not end within {WITHIN:g} s (it is {shown or 'not there'})"
            )
        await asyncio.sleep(0.2)
    if run["status"] not in {"promoted", "rejected"}:
        raise CallFailed(f"the training run {run['status']}: {run['error']}")
    await _curves(connection, screen, tenant, run["run_id"])
    await _evaluation(connection, screen, tenant)
    return dict(run)


async def _curves(connection: Connection, screen: Screen, tenant: str, run_id: Any) -> None:
    rows = await connection.fetch(
        "SELECT train_loss, valid_loss FROM training_events WHERE tenant_id = $1 AND run_id = $2 AND step IS NOT NULL ORDER BY step",
        tenant,
        run_id,
    )
    screen.curve("train loss", [row["train_loss"] for row in rows if row["train_loss"] is not None])
    screen.curve("validation loss", [row["valid_loss"] for row in rows if row["valid_loss"] is not None])


async def _evaluation(connection: Connection, screen: Screen, tenant: str) -> None:
    data = await connection.fetchval(
        "SELECT data FROM events WHERE tenant_id = $1 AND type = 'model.evaluated' ORDER BY accept_no DESC LIMIT 1",
        tenant,
    )
    if data is None or not data["table"]:
        return
    # One column per model, one row per measure: fits a terminal.
    measures = [name for name in data["table"][0] if name not in {"role", "model"}]
    models = [f"{row['role']}: {str(row['model'])[:24]}" for row in data["table"]]
    rows = [[name.replace("_", " "), *(_short(row.get(name)) for row in data["table"])] for name in measures]
    screen.table("evaluation on held-out examples", ["measure", *models], rows)
    screen.say(f"   {'promoted' if data['promote'] else 'rejected'}: {data['reason']}")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return " … ".join(_short(item) for item in value)
    return "-" if value is None else str(value)
