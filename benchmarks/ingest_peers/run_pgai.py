"""Texts pass through pgai's vectorizer worker here, cut by its own splitter, with the settings that are fastest.

Reads one JSON object from standard input and prints one: the seconds from the insert of the texts until its worker has
emptied its queue, without the worker's own start.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from datetime import timedelta
from typing import Any

import pgai
import psycopg
from pgai.vectorizer.worker import Worker

CREATE = """
SELECT ai.create_vectorizer(
  %(source)s::regclass,
  loading => ai.loading_column('content'),
  embedding => ai.embedding_openai('stub', %(dimensions)s, api_key_name => 'OPENAI_API_KEY', base_url => %(base_url)s),
  chunking => ai.chunking_recursive_character_text_splitter(700, 90),
  formatting => ai.formatting_python_template('$chunk'),
  indexing => ai.indexing_none(),
  processing => ai.processing_default(batch_size => 500, concurrency => 2),
  destination => ai.destination_table(%(target)s)
)
"""


async def main() -> None:
    """Install the extension's schema, make a vectorizer, insert, wait, tell."""
    asked: dict[str, Any] = json.load(sys.stdin)
    os.environ["OPENAI_API_KEY"] = "bench"
    source, target = asked["table"], f"{asked['table']}_embeddings"
    pgai.install(asked["url"])
    with psycopg.connect(asked["url"], autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {source} (id int PRIMARY KEY, content text NOT NULL)".encode())
        [vectorizer] = connection.execute(
            CREATE,
            {
                "source": source,
                "target": target,
                "dimensions": asked["dimensions"],
                "base_url": asked["base_url"],
            },
        ).fetchone() or [0]
        if asked["indexed"]:
            connection.execute(
                f"CREATE INDEX ON {target}_store USING hnsw (embedding vector_ip_ops)".encode()
            )

        async def work() -> None:
            error = await Worker(
                asked["url"], timedelta(seconds=0), True, [vectorizer], True, concurrency=2
            ).run()
            if error is not None:
                raise error

        connection.execute(f"INSERT INTO {source} VALUES (0, 'warm up')".encode())  # noqa: S608
        await work()
        rows = list(enumerate(asked["texts"], 1))
        began = time.perf_counter()
        with connection.cursor() as cursor, connection.transaction():
            cursor.executemany(f"INSERT INTO {source} VALUES (%s, %s)".encode(), rows)  # noqa: S608
        await work()
        seconds = time.perf_counter() - began
        found = connection.execute(f"SELECT count(*) FROM {target}_store".encode()).fetchone()  # noqa: S608
    chunks = found[0] - 1 if found else 0
    if chunks < len(rows):
        raise RuntimeError(f"{chunks} chunks of {len(rows)} texts")
    print(json.dumps({"seconds": seconds, "chunks": chunks}))


if __name__ == "__main__":
    asyncio.run(main())
