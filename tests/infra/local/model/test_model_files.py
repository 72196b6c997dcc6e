from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from infra.local.model.errors import ApiError
from infra.local.model.multipart import Part, read_form

if TYPE_CHECKING:
    from infra.local.model.server import ModelServer

DATA = b'{"a": 1}\r\n--not a border\r\n\x00\xff\r\n'


async def test_a_file_comes_back_byte_for_byte(client: AsyncOpenAI) -> None:
    """Whatever bytes it has, and under any name."""
    file = await client.files.create(file=("ü b.jsonl", DATA), purpose="fine-tune")
    assert (len(DATA), "fine-tune", "processed") == (file.bytes, file.purpose, file.status)
    assert DATA == (await client.files.content(file.id)).content
    assert file == await client.files.retrieve(file.id)


async def test_a_deleted_file_is_gone(client: AsyncOpenAI) -> None:
    """From retrieval, content and listing."""
    file = await client.files.create(file=("a.jsonl", DATA), purpose="fine-tune")
    assert (await client.files.delete(file.id)).deleted
    for gone in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(NotFoundError):
            await gone(file.id)
    assert file.id not in [listed.id async for listed in client.files.list()]


async def test_files_are_listed_by_purpose_and_page(client: AsyncOpenAI) -> None:
    """Newest first, or oldest first when asked; pages join without a gap or a repetition."""
    made = [(await client.files.create(file=(f"{n}.txt", b"x"), purpose="user_data")).id for n in range(5)]
    newest_first = [file.id async for file in client.files.list(purpose="user_data", limit=2)]
    oldest_first = [file.id async for file in client.files.list(purpose="user_data", limit=2, order="asc")]
    assert made[::-1] == newest_first[:5]
    assert newest_first == oldest_first[::-1]
    assert not set(made) & {file.id async for file in client.files.list(purpose="fine-tune")}


async def test_an_expiring_file_says_when(client: AsyncOpenAI) -> None:
    """`expires_after` counts from the upload."""
    file = await client.files.create(
        file=("a.jsonl", DATA), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.created_at + 3600 == file.expires_at
    assert abs(file.created_at - time.time()) < 60


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"purpose": "world-domination"}, "purpose"),
        (
            {"purpose": "fine-tune", "expires_after": {"anchor": "created_at", "seconds": 1}},
            "expires_after.seconds",
        ),
        (
            {"purpose": "fine-tune", "expires_after": {"anchor": "last_used", "seconds": 3600}},
            "expires_after.anchor",
        ),
    ],
)
async def test_a_bad_upload_names_its_parameter(
    client: AsyncOpenAI, options: dict[str, Any], param: str
) -> None:
    """An unknown purpose and an impossible life are refused."""
    with pytest.raises(BadRequestError) as caught:
        await client.files.create(file=("a.jsonl", DATA), **options)
    assert param == caught.value.param


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data; boundary=x", b"--x\r\nbroken off"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data", b"--x--"),
        ("text/plain; boundary=x", b"--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nno name\r\n--x--\r\n"),
    ],
)
def test_a_broken_form_is_refused(content_type: str, body: bytes) -> None:
    """With 400, never with a traceback."""
    with pytest.raises(ApiError) as caught:
        read_form(content_type, body)
    assert (400, "invalid_multipart") == (caught.value.status, caught.value.code)


def test_a_form_is_read_by_its_borders_only() -> None:
    """Lines that look like borders inside a file stay in it."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\n--y\r\n\r\n-x\n\r\n--x--\r\n"
    )
    form = read_form('multipart/form-data; boundary="x"', body)
    assert {
        "purpose": Part("purpose", b"batch", None),
        "file": Part("file", b"--y\r\n\r\n-x\n", "a.txt"),
    } == form


async def test_an_upload_without_a_file_is_refused(model_server: ModelServer) -> None:
    """The missing parameter is named."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        reply = await http.post(
            f"{model_server.base_url}/files",
            headers={
                "authorization": f"Bearer {model_server.api_key}",
                "content-type": "multipart/form-data; boundary=x",
            },
            content=b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n',
        )
    assert (400, "file") == (reply.status_code, reply.json()["error"]["param"])
