"""A desk for questions, with two documents on its shelf."""

from __future__ import annotations

import pytest

from tests.conftest import NewTenant
from tests.drive import Drive
from tests.workers.answer.desk import HEATING, TRAVEL, Desk


@pytest.fixture
async def bare_desk(drive: Drive, new_tenant: NewTenant) -> Desk:
    """A desk without documents."""
    await drive.use("ingest", "answer")
    return Desk(drive, await new_tenant())


@pytest.fixture
async def desk(bare_desk: Desk) -> Desk:
    """A desk with two documents."""
    await bare_desk.put(HEATING, "aurora", metadata={"topic": "heating", "year": 2024})
    await bare_desk.put(TRAVEL, "travel", metadata={"topic": "travel", "year": 2025})
    return bare_desk
