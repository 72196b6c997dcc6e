"""Inputs of /v1/embeddings pass through here and go on as unit vectors, as floats or as base64.

The limits and their messages are OpenAI's, counted with this server's tokenizer.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import orjson

from infra.local.model.errors import invalid, no_such_model, wrong_type
from infra.local.model.fields import Fields, read_json
from infra.local.model.reply import Ask, Reply, Usage
from infra.local.model.vectors import DIMENSIONS, Encoder, Vectors, shorten

EMBEDDING_MODEL = "local-embed-256"
MOST_INPUTS = 2048
MOST_TOKENS_EACH = 8192
MOST_TOKENS = 300_000
INLINE_CHARACTERS = 2000
"""Shorter requests take less time than handing them to a thread."""

_KNOWN = ("model", "input", "encoding_format", "dimensions", "user")


class Embeddings:
    """The endpoint /v1/embeddings."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        # One thread: more would take turns at the same interpreter and keep questions waiting behind documents.
        self._batches = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")

    def close(self) -> None:
        """Take no more batches."""
        self._batches.shutdown(wait=False, cancel_futures=True)

    async def create(self, ask: Ask) -> Reply:
        """Embed the inputs of one request."""
        fields = Fields(read_json(ask.body))
        fields.only(_KNOWN)
        model = fields.text("model")
        if model != EMBEDDING_MODEL:
            raise no_such_model(model)
        base64_wanted = fields.choice("encoding_format", ("float", "base64"), "float") == "base64"
        dimensions = fields.whole("dimensions", DIMENSIONS, low=1, high=DIMENSIONS)
        inputs = read_inputs(fields, self._encoder.tokenizer.size)
        if sum(map(len, inputs)) <= INLINE_CHARACTERS:
            return self._reply(ask, inputs, dimensions, base64_wanted=base64_wanted)
        work = partial(self._reply, ask, inputs, dimensions, base64_wanted=base64_wanted)
        return await asyncio.get_running_loop().run_in_executor(self._batches, work)

    def _reply(
        self, ask: Ask, inputs: Sequence[str | list[int]], dimensions: int, *, base64_wanted: bool
    ) -> Reply:
        rows = self._token_rows(inputs)
        total = check_sizes(rows)
        vectors = shorten(self._encoder.embed_ids(rows), dimensions)
        vectors = damaged(ask, inputs, vectors)
        body = {
            "object": "list",
            "data": listed(ask, vectors, base64_wanted=base64_wanted),
            "model": EMBEDDING_MODEL,
            "usage": {"prompt_tokens": total, "total_tokens": total},
        }
        usage = Usage(inputs=len(rows), prompt_tokens=total, model=EMBEDDING_MODEL)
        return Reply(body=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), usage=usage)

    def _token_rows(self, inputs: Sequence[str | list[int]]) -> list[list[int]]:
        texts = [given for given in inputs if isinstance(given, str)]
        encoded = iter(self._encoder.tokenizer.encode(texts))
        return [next(encoded) if isinstance(given, str) else given for given in inputs]


def read_inputs(fields: Fields, vocabulary: int) -> list[str | list[int]]:
    """The inputs of a request: a string, strings, token ids or arrays of token ids.

    Raises:
        ApiError: none of these, empty, too many, or unknown ids.
    """
    given = fields.values.get("input")
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        given = [given]
    if not isinstance(given, list):
        raise wrong_type("input", "a string or an array")
    if not given:
        raise invalid("'input' cannot be an empty array.", "input", "empty_array")
    if len(given) > MOST_INPUTS:
        raise invalid(
            f"Invalid 'input': array too long. Expected an array with maximum length {MOST_INPUTS}, "
            f"but got an array with length {len(given)} instead.",
            "input",
            "array_above_max_length",
        )
    return [_one_input(value, n, vocabulary) for n, value in enumerate(given)]


def _one_input(value: object, n: int, vocabulary: int) -> str | list[int]:
    if value in ("", []):
        raise invalid(f"Invalid 'input[{n}]': input cannot be an empty string.", "input", "empty_string")
    if isinstance(value, str):
        return value
    ids = [token for token in value if type(token) is int] if isinstance(value, list) else []
    if not isinstance(value, list) or len(ids) != len(value):
        raise wrong_type(f"input[{n}]", "a string or an array of token ids")
    if min(ids) < 0 or max(ids) >= vocabulary:
        raise invalid(
            f"Invalid 'input[{n}]': token ids go from 0 to {vocabulary - 1}.", "input", "invalid_token"
        )
    return ids


def check_sizes(rows: Sequence[Sequence[int]]) -> int:
    """Refuse an input, or a request, with too many tokens; returns the sum."""
    total = 0
    for n, row in enumerate(rows):
        total += len(row)
        if len(row) > MOST_TOKENS_EACH:
            raise invalid(
                f"Invalid 'input[{n}]': maximum context length is {MOST_TOKENS_EACH} tokens, "
                f"however you requested {len(row)} tokens. Please reduce your prompt.",
                "input",
                "context_length_exceeded",
            )
    if total > MOST_TOKENS:
        raise invalid(
            f"Invalid 'input': maximum request size is {MOST_TOKENS} tokens per request, "
            f"however you requested {total} tokens.",
            "input",
            "max_tokens_per_request",
        )
    return total


def damaged(ask: Ask, inputs: Sequence[str | list[int]], vectors: Vectors) -> Vectors:
    """The vectors as the faults `wrong_dimensions` and `nan` want them.

    With `match` only the matching inputs become NaN; without it the first one does.
    """
    if ask.shows("wrong_dimensions"):
        return np.ascontiguousarray(vectors[:, :-1])
    if ask.fault is not None and ask.shows("nan"):
        match = ask.fault.match
        hit = [
            n
            for n, text in enumerate(inputs)
            if match is not None and isinstance(text, str) and match in text
        ]
        vectors = vectors.copy()
        vectors[hit or [0]] = np.nan
    return vectors


def listed(ask: Ask, vectors: Vectors, *, base64_wanted: bool) -> list[dict[str, object]]:
    """The `data` of the reply; `empty`, `short` and `shuffled` leave vectors out or turn their order round."""
    wire = vectors.astype("<f4", copy=False)
    data: list[dict[str, object]] = [
        {
            "object": "embedding",
            "index": n,
            "embedding": base64.b64encode(row).decode("ascii") if base64_wanted else row,
        }
        for n, row in enumerate(wire)
    ]
    if ask.shows("empty"):
        return []
    if ask.shows("short"):
        return data[:-1]
    return data[::-1] if ask.shows("shuffled") else data
