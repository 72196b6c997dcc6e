"""The peer of `answer`: a bare openai client in a process of its own; questions come in, their number per second goes out."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import openai
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.answer_shelf import DIMENSIONS, MODEL


async def bare(url: str, slots: int, questions: Sequence[str]) -> float:
    """Embed each question and stream 20 tokens for it, with the SDK as its documentation says."""
    passage = "A chunk of usual length that was found for the question. " * 8
    prompt = "\n".join(f'<passage id="{n}">\n{passage}\n</passage>' for n in range(1, 9))
    gate = asyncio.Semaphore(slots)
    async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:

        async def one(question: str) -> None:
            async with gate:
                await client.embeddings.create(input=[question], model=MODEL, dimensions=DIMENSIONS)
                stream = await client.chat.completions.create(
                    model="local-chat",
                    messages=[{"role": "user", "content": f"{prompt}\nQuestion: {question}"}],
                    stream=True,
                    stream_options={"include_usage": True},
                )
                text = ""
                async for chunk in stream:
                    if chunk.choices:
                        text += chunk.choices[0].delta.content or ""
                assert text

        await asyncio.gather(*(one(question) for question in questions[:20]))
        began = time.perf_counter()
        await asyncio.gather(*(one(question) for question in questions))
        return len(questions) / (time.perf_counter() - began)


if __name__ == "__main__":
    print(uvloop.run(bare(sys.argv[1], int(sys.argv[2]), json.load(sys.stdin))))
