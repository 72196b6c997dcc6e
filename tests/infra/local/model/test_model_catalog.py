from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, PermissionDeniedError

from tests.infra.local.model.helpdesk import Desk, train, upload

if TYPE_CHECKING:
    from infra.local.model.faults_client import Faults

HELLO = [{"role": "user", "content": "Hello?"}]


async def test_models_are_listed_with_their_shutdown_date(client: AsyncOpenAI, faults: Faults) -> None:
    """A date can be announced and taken back."""
    assert {"local-chat", "local-embed-256"} <= {model.id async for model in client.models.list()}
    assert (await client.models.retrieve("local-chat")).shutdown_date is None
    await faults.shutdown_date("local-chat", "2999-01-14")
    assert "2999-01-14" == (await client.models.retrieve("local-chat")).shutdown_date
    await faults.shutdown_date("local-chat", None)
    assert (await client.models.retrieve("local-chat")).shutdown_date is None


async def test_a_model_past_its_date_is_gone(client: AsyncOpenAI, desk: Desk, faults: Faults) -> None:
    """It answers no question and starts no training."""
    file = await upload(client, desk.train)
    await faults.shutdown_date("local-chat", "2020-01-01")
    try:
        with pytest.raises(NotFoundError):
            await client.chat.completions.create(model="local-chat", messages=HELLO)  # type: ignore[arg-type]
        with pytest.raises(BadRequestError):
            await client.fine_tuning.jobs.create(model="local-chat", training_file=file)
    finally:
        await faults.shutdown_date("local-chat", None)


async def test_a_tuned_model_can_be_deleted(client: AsyncOpenAI, desk: Desk) -> None:
    """After that it is not found; a base model cannot be deleted."""
    model = await train(client, desk.train)
    assert (await client.models.delete(model)).deleted
    with pytest.raises(NotFoundError):
        await client.models.retrieve(model)
    with pytest.raises(NotFoundError):
        await client.chat.completions.create(model=model, messages=HELLO)  # type: ignore[arg-type]
    with pytest.raises(PermissionDeniedError):
        await client.models.delete("local-chat")


async def test_a_bad_date_is_refused(faults: Faults) -> None:
    """The switch says what it expects."""
    with pytest.raises(ValueError, match="expected a date"):
        await faults.shutdown_date("local-chat", "soon")
