"""Examples that an upstream system left at a URL are fetched here, held against their hash, and checked line by line."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import orjson
from pydantic import ValidationError

from infra.egress import Egress
from schemas.errors import BadInput
from schemas.inbound import BatchExample
from schemas.registry import first_problem

MAX_BYTES = 64 * 1024 * 1024
MAX_LINES = 50_000


async def fetch_examples(egress: Egress, uri: str, sha256: str) -> list[BatchExample]:
    """The examples of a JSONL file, one object with `messages` (and `weight`) a line.

    Raises:
        BadInput: another hash, or a line that breaks the shape; names the line.
        PenstockError: the address is blocked or the server fails; see `infra.egress`.
    """
    document = await egress.fetch(uri, max_bytes=MAX_BYTES)
    if hashlib.sha256(document.body).hexdigest() != sha256:
        raise BadInput("the file has another hash", field="data.sha256")
    lines = [line for line in document.body.split(b"\n") if line.strip()]
    if len(lines) > MAX_LINES:
        raise BadInput(f"the file has more than {MAX_LINES} lines", field="data.uri")
    return read_lines(lines)


def read_lines(lines: Sequence[bytes]) -> list[BatchExample]:
    """Read lines strictly.

    Raises:
        BadInput: names the first line at fault.
    """
    found: list[BatchExample] = []
    for number, line in enumerate(lines, start=1):
        field = f"data.uri.line.{number}"
        try:
            found.append(BatchExample.model_validate(orjson.loads(line), strict=True, extra="forbid"))
        except orjson.JSONDecodeError:
            raise BadInput("the line is not JSON", field=field) from None
        except ValidationError as error:
            raise first_problem(error, field) from None
    return found
