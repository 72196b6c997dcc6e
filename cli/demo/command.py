"""The command: each stage on real servers, then the count. It exits 0 only if every step did its job."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.run import FAILED, run_async
from cli.show import print_json
from schemas.errors import PenstockError

TENANT = "demo"
FOLDER = Path(".penstock") / "demo"


def demo(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the final table as one JSON object, last.")
    ] = False,
    keep: Annotated[bool, typer.Option(help="Leave the stack running and say how to use it.")] = False,
) -> None:
    """Run the whole loop on servers of its own: documents, questions, webhooks, a fine-tune; about a minute.

    Nothing of your environment is used: no key, no database, no cost.
    """
    result = run_async(_guarded(keep=keep))
    if as_json:
        print_json(result)
    if not result["ok"]:
        raise typer.Exit(FAILED)


async def _guarded(*, keep: bool) -> dict[str, Any]:
    """Let SIGTERM end the demo as Ctrl-C does: everything that was started is stopped."""
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    from cli.demo.screen import Screen

    screen = Screen()
    try:
        return await _demo(screen, keep=keep)
    except PenstockError as error:
        screen.console.print(f"[bold red]The demo failed:[/] {error.message}", markup=True, highlight=False)
        return {"ok": False, "error": error.as_dict(), "seconds": screen.seconds}


async def _demo(screen: Any, *, keep: bool) -> dict[str, Any]:
    from cli.demo.gateway import Gateway
    from cli.demo.loop import Loop
    from cli.demo.receiver import Receiver
    from cli.demo.stack import demo_stack
    from cli.local import make_tenant
    from infra.database import Database

    folder = FOLDER.resolve()
    async with AsyncExitStack() as held:
        with screen.stage(
            "start", "1  Starting PostgreSQL, Valkey, the model server, the gateway and four pools of workers"
        ):
            stack = await held.enter_async_context(demo_stack(folder, keep=keep))
            screen.say(f"   everything runs, at {stack.url}")
        owner = await held.enter_async_context(Database.open(stack.owner_url, role=None, size=2))
        connection = await held.enter_async_context(owner.connection())
        scopes = ["publish", "query", "feedback", "train", "admin", "ops"]
        keys = await make_tenant(stack.owner_url, TENANT, {"demo": scopes})
        gateway = await held.enter_async_context(Gateway.open(stack.url, keys["demo"]))
        receiver = await held.enter_async_context(Receiver.open())
        loop = Loop(
            screen=screen,
            gateway=gateway,
            receiver=receiver,
            connection=connection,
            tenant=TENANT,
            settings=stack.settings,
            home=stack.home,
        )
        tally = await loop.run()
        if keep:
            screen.say(f"\nThe stack stays up at {stack.url}. To use it:")
            screen.say(f"   export PENSTOCK_HOME={stack.home}")
            screen.say(
                '   penstock ask "What does the assert statement do?" --collection demo   (with the key below)'
            )
            screen.say(f"   export PENSTOCK_URL={stack.url} PENSTOCK_API_KEY={keys['demo']}")
            screen.say("   penstock down --wipe   stops it and removes its data")
    return {
        "ok": tally.ok,
        "counts": [{**asdict(line), "ok": line.ok} for line in tally.lines],
        "received": tally.received,
        "sent": asdict(loop.sent),
        "model": loop.tuned_model,
        "ladder": loop.ladder,
        "seconds": screen.seconds,
    }


def add_to(app: typer.Typer) -> None:
    """Mount the command."""
    app.command(rich_help_panel="Start here")(demo)
