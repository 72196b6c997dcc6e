from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.model.server import ModelServer
from infra.settings import Settings
from tests.cli.commands import Penstock, bare_environment
from tests.conftest import SECRET_KEYS, Stack


@pytest.fixture
def nowhere(tmp_path: Path) -> Penstock:
    """An empty directory and no settings at all."""
    return Penstock(tmp_path, bare_environment())


@pytest.fixture
def penstock(tmp_path: Path, stack: Stack, settings: Settings, model_server: ModelServer) -> Penstock:
    """The test stack's servers, given by the environment as an operator gives them."""
    return Penstock(
        tmp_path,
        stack.environment(
            COLUMNS="200",
            NO_COLOR="1",
            TERM="dumb",
            OPENAI_BASE_URL=model_server.base_url,
            OPENAI_API_KEY=model_server.api_key,
            PENSTOCK_EMBED_MODEL=settings.embed_model,
            PENSTOCK_EMBED_DIMENSIONS=str(settings.embed_dimensions),
            PENSTOCK_CHAT_MODEL=settings.chat_model,
            PENSTOCK_SECRET_KEYS=SECRET_KEYS,
        ),
    )
