from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import psutil
import pytest
from openai import APIConnectionError, AsyncOpenAI, AuthenticationError

from infra.local.model.faults_client import Faults
from infra.local.model.server import ModelServer
from schemas.errors import Unavailable
from tests.infra.local.model.helpdesk import Desk, quality, upload
from tests.infra.local.model.waiting import finished_job, until

REPOSITORY = Path(__file__).parents[4]


@asynccontextmanager
async def client_of(server: ModelServer, key: str | None = None) -> AsyncIterator[AsyncOpenAI]:
    """A client of a server of this test's own."""
    async with AsyncOpenAI(
        base_url=server.base_url, api_key=key or server.api_key, max_retries=0, timeout=30
    ) as client:
        yield client


async def steps(client: AsyncOpenAI, job_id: str) -> list[int]:
    """The steps that a job has reported, in order."""
    events = [e async for e in client.fine_tuning.jobs.list_events(job_id, limit=100) if e.type == "metrics"]
    return [dict(event.data)["step"] for event in events][::-1]  # type: ignore[call-overload]


async def test_a_server_ends_cleanly_while_a_call_hangs(tmp_path: Path) -> None:
    """SIGTERM ends it with status 0, whatever is under way."""
    async with (
        ModelServer.start(tmp_path / "a folder with spaces") as server,
        client_of(server) as client,
        Faults(server.base_url) as faults,
    ):
        await faults.add("embeddings", "hang")
        hanging = asyncio.create_task(client.embeddings.create(model="local-embed-256", input="x"))

        async def hangs() -> bool:
            return (await faults.calls()).get("embeddings", {}).get("in_flight") == 1

        await until(hangs)
        server.process.send_signal(signal.SIGTERM)
        assert 0 == await server.process.wait()
        with pytest.raises(APIConnectionError):
            await hanging


async def test_files_jobs_and_models_outlive_the_server(tmp_path: Path, desk: Desk) -> None:
    """The next server on the same folder finds them, and the tuned model answers as before."""
    async with ModelServer.start(tmp_path, train_seconds=0) as server, client_of(server) as client:
        file = await upload(client, desk.train)
        job = await client.fine_tuning.jobs.create(
            model="local-chat", training_file=file, metadata={"a": "b"}
        )
        model = (await finished_job(client, job.id)).fine_tuned_model
        assert model is not None
        before = await quality(client, model, desk.held_out[:10])
    async with ModelServer.start(tmp_path) as server, client_of(server) as client:
        assert file == (await client.files.retrieve(file)).id
        found = await client.fine_tuning.jobs.list(metadata={"a": "b"})
        assert [(job.id, "succeeded", model)] == [(j.id, j.status, j.fine_tuned_model) for j in found.data]
        assert before == await quality(client, model, desk.held_out[:10])


async def test_a_killed_server_s_job_is_finished_by_the_next(tmp_path: Path, desk: Desk) -> None:
    """After kill -9 in the middle of training every step is reported once and the job succeeds."""
    async with ModelServer.start(tmp_path, train_seconds=6) as server, client_of(server) as client:
        job = await client.fine_tuning.jobs.create(
            model="local-chat", training_file=await upload(client, desk.train), seed=3
        )

        async def well_under_way() -> bool:
            return len(await steps(client, job.id)) >= 25

        await until(well_under_way)
        server.process.kill()
        await server.process.wait()
    async with ModelServer.start(tmp_path, train_seconds=0.2) as server, client_of(server) as client:
        assert "succeeded" == (await finished_job(client, job.id)).status
        assert list(range(1, 61)) == await steps(client, job.id)
        points = await client.fine_tuning.jobs.checkpoints.list(job.id)
        assert [60, 40, 20] == [point.step_number for point in points.data]


async def test_a_paused_job_is_still_paused_after_a_restart(tmp_path: Path, desk: Desk) -> None:
    """And goes on when it is resumed there."""
    async with ModelServer.start(tmp_path, train_seconds=6) as server, client_of(server) as client:
        job = await client.fine_tuning.jobs.create(
            model="local-chat", training_file=await upload(client, desk.train)
        )
        await client.fine_tuning.jobs.pause(job.id)
    async with ModelServer.start(tmp_path, train_seconds=0) as server, client_of(server) as client:
        assert "paused" == str((await client.fine_tuning.jobs.retrieve(job.id)).status)
        await client.fine_tuning.jobs.resume(job.id)
        assert "succeeded" == (await finished_job(client, job.id)).status


async def test_one_folder_has_one_server(tmp_path: Path) -> None:
    """A second one is refused instead of mixing its writes with the first's."""
    async with ModelServer.start(tmp_path):
        with pytest.raises(Unavailable, match="exited with status 1"):
            async with ModelServer.start(tmp_path):
                pass


async def test_the_key_is_checked(tmp_path: Path) -> None:
    """A wrong key and none are answered 401 in OpenAI's shape; no work is done."""
    async with ModelServer.start(tmp_path, api_key="sk-right") as server:
        async with client_of(server, "sk-wrong") as stranger:
            with pytest.raises(AuthenticationError) as caught:
                await stranger.models.list()
            assert caught.value.code == "invalid_api_key"
            assert "sk-" not in caught.value.message
        async with httpx2.AsyncClient(trust_env=False) as http:
            assert 401 == (await http.get(f"{server.base_url}/models")).status_code
            command = " ".join(psutil.Process(server.pid).cmdline())
        async with client_of(server) as client:
            assert (await client.models.list()).data
        assert "sk-right" not in command


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v1/nothing", {}, 404),
        ("PATCH", "/v1/models", {}, 405),
        ("GET", "/v1/models", {"host": "evil.example"}, 400),
        (
            "POST",
            "/v1/embeddings",
            {"authorization": "Bearer local", "content-type": "application/json"},
            400,
        ),
    ],
)
async def test_nonsense_is_refused(
    method: str, path: str, headers: dict[str, str], status: int, model_server: ModelServer
) -> None:
    """Unknown paths and methods, foreign host names, bodies that are no JSON."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        reply = await http.request(method, model_server.admin_url + path, headers=headers)
    assert status == reply.status_code


async def test_a_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Even after a kill -9 of its starter no server stays behind."""
    starter = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom infra.local.model.server import ModelServer\n"
        "async def main():\n"
        "    async with ModelServer.start(Path(sys.argv[1])) as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", starter, str(tmp_path), stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert process.stdout is not None
    server = psutil.Process(int(await process.stdout.readline()))
    process.kill()
    await process.wait()

    async def gone() -> bool:
        return not server.is_running() or server.status() == psutil.STATUS_ZOMBIE

    await until(gone)


async def test_the_command_line_writes_a_private_ready_file(tmp_path: Path) -> None:
    """Address, key and pid for whoever started it by hand, readable by its owner only."""
    ready_file = tmp_path / "ready.json"
    environment = {**os.environ, "PENSTOCK_LOCAL_MODEL_KEY": "sk-own"}
    arguments = ["--state", str(tmp_path / "state"), "--ready-file", str(ready_file)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "infra.local.model", *arguments, cwd=REPOSITORY, env=environment
    )
    try:

        async def written() -> bool:
            return ready_file.exists()

        await until(written)
        ready = json.loads(ready_file.read_text(encoding="utf-8"))
        assert ("sk-own", process.pid, 0o600) == (
            ready["api_key"],
            ready["pid"],
            ready_file.stat().st_mode & 0o777,
        )
        async with AsyncOpenAI(base_url=ready["base_url"], api_key=ready["api_key"]) as client:
            assert (await client.models.list()).data
    finally:
        process.terminate()
        assert 0 == await process.wait()


def test_the_server_does_not_load_the_openai_client_nor_wordllama() -> None:
    """It starts fast, and nothing of the wheel's code runs."""
    code = (
        "import sys, infra.local.model.process as p, infra.local.model.vectors as v\n"
        "v.Encoder.load()\n"
        "print(sorted({'openai', 'wordllama'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert "[]" == done.stdout.strip()
