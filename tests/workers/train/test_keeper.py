from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest

from infra.model_aliases import list_aliases, list_models
from tests.workers.train.conftest import Wheel
from workers.train.keeper import Keeper, is_failing, warning_due

TODAY = date(2026, 11, 23)


@pytest.mark.parametrize(
    ("tried", "failed", "expected"),
    [
        (0, 0, False),
        (4, 4, False),
        (5, 5, True),
        (25, 5, False),
        (24, 5, True),
        (1000, 100, False),
        (1000, 201, True),
    ],
)
def test_a_model_fails_when_a_fifth_of_its_calls_do(tried: int, failed: int, *, expected: bool) -> None:
    """A few failures prove nothing, and neither do many among many more answers."""
    assert expected is is_failing(tried, failed)


@pytest.mark.parametrize(
    ("left", "warned", "expected"),
    [
        (None, None, None),
        (40, None, None),
        (30, None, 30),
        (29, 30, None),
        (10, 30, 14),
        (10, None, 14),
        (0, 1, 0),
        (-5, 0, None),
    ],
)
def test_owners_are_told_at_each_step_towards_the_end(
    left: int | None, warned: int | None, expected: int | None
) -> None:
    """30, 14, 7, 3, 1 and 0 days before, each once, however late the date was announced."""
    ends = None if left is None else TODAY + timedelta(days=left)
    assert expected == warning_due(ends, TODAY, warned)


async def served(wheel: Wheel, alias: str, model: str = "ft:local-chat:x") -> Keeper:
    """A tuned model that serves, and the one who looks after it."""
    async with wheel.drive.owner.connection() as connection:
        await connection.execute(
            "INSERT INTO models (tenant_id, model, base_model) VALUES ($1, $2, 'local-chat') ON CONFLICT DO NOTHING",
            wheel.tenant,
            model,
        )
        await connection.execute(
            "INSERT INTO model_aliases (tenant_id, alias, model, previous, changed_at)"
            " VALUES ($1, $2, $3, 'local-chat', now() - interval '1 hour')",
            wheel.tenant,
            alias,
            model,
        )
    assert wheel.drive.resources.models is not None
    return Keeper(wheel.drive.resources, wheel.drive.resources.models)


async def answered(
    wheel: Wheel, alias: str, model: str, count: int, *, instead_of: str | None = None
) -> None:
    """Answers of the last minutes."""
    async with wheel.drive.owner.connection() as connection:
        await connection.executemany(
            "INSERT INTO answers (tenant_id, query_id, status, question, collections, alias, model, report)"
            " VALUES ($1, $2, 'answered', 'q', '{}', $3, $4, $5)",
            [(wheel.tenant, uuid4(), alias, model, {"instead_of": instead_of}) for _ in range(count)],
        )


async def test_a_failing_model_is_rolled_back_by_itself(wheel: Wheel) -> None:
    """The alias goes back with its history, receivers are told, and a second look changes nothing."""
    keeper = await served(wheel, "chat")
    await answered(wheel, "chat", "local-chat", 6, instead_of="ft:local-chat:x")
    await answered(wheel, "chat", "local-chat", 50)
    await keeper.look()
    await keeper.look()
    [alias] = await list_aliases(wheel.gateway, wheel.tenant)
    assert ("local-chat", None) == (alias["model"], alias["previous"])
    [told] = await wheel.said("model.rolled_back")
    assert ("ft:local-chat:x", "6 of 6 calls failed within ten minutes") == (told["previous"], told["reason"])


async def test_a_model_that_mostly_answers_stays(wheel: Wheel) -> None:
    """Five failures among thirty answers of its own are no reason; another alias's failures are not its own."""
    keeper = await served(wheel, "chat")
    await answered(wheel, "chat", "local-chat", 5, instead_of="ft:local-chat:x")
    await answered(wheel, "chat", "ft:local-chat:x", 30)
    await answered(wheel, "other", "local-chat", 50, instead_of="ft:local-chat:x")
    await keeper.look()
    [alias] = await list_aliases(wheel.gateway, wheel.tenant)
    assert "ft:local-chat:x" == alias["model"]


async def test_the_end_of_a_serving_model_is_announced_and_then_left(wheel: Wheel) -> None:
    """Its base ends in ten days: told once. On the day, the alias goes back."""
    today = datetime.now(UTC).date()
    await wheel.faults.shutdown_date("local-chat", (today + timedelta(days=10)).isoformat())
    try:
        keeper = await served(wheel, "chat")
        await keeper.look()
        await keeper.announce()
        [told] = await wheel.said("model.ending")
        assert (14, str(today + timedelta(days=10))) == (told["days"], told["ends_on"])
        [model] = await list_models(wheel.gateway, wheel.tenant)
        assert today + timedelta(days=10) == model["shutdown_date"]
        await wheel.faults.shutdown_date("local-chat", today.isoformat())
        await keeper.announce()
    finally:
        await wheel.faults.shutdown_date("local-chat", None)
    assert [14, 0] == [one["days"] for one in await wheel.said("model.ending")]
    [alias] = await list_aliases(wheel.gateway, wheel.tenant)
    assert "local-chat" == alias["model"]


async def test_the_end_of_a_base_model_that_serves_is_announced_too(wheel: Wheel) -> None:
    """An alias that nobody tuned means the default model: its owner is told, again when the end is put off, and it stays."""
    await wheel.dataset(alias="house")
    assert wheel.drive.resources.models is not None
    keeper = Keeper(wheel.drive.resources, wheel.drive.resources.models)
    today = datetime.now(UTC).date()
    try:
        for days in (6, 6, 25):
            await wheel.faults.shutdown_date("local-chat", (today + timedelta(days=days)).isoformat())
            assert await keeper.announce()
    finally:
        await wheel.faults.shutdown_date("local-chat", None)
    told = [(one["alias"], one["model"], one["days"]) for one in await wheel.said("model.ending")]
    assert [("house", "local-chat", 7), ("house", "local-chat", 30)] == told
    assert [] == await list_aliases(wheel.gateway, wheel.tenant)


async def test_an_end_that_cannot_be_read_is_asked_for_again(wheel: Wheel) -> None:
    """A provider that is away leaves the day's look undone."""
    keeper = await served(wheel, "chat")
    await wheel.faults.add("models.retrieve", "500")
    assert not await keeper.announce()
