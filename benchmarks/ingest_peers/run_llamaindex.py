"""Texts pass through LlamaIndex's IngestionPipeline into its PGVectorStore here, with the settings that are fastest.

Reads one JSON object from standard input and prints one: the seconds from the first text to the last row committed.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
import time

from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.vector_stores.postgres import PGVectorStore


def main() -> None:
    """Make the table, ingest, tell."""
    asked = json.load(sys.stdin)
    index = {
        "hnsw_m": 16,
        "hnsw_ef_construction": 64,
        "hnsw_ef_search": 40,
        "hnsw_dist_method": "halfvec_ip_ops",
    }
    store = PGVectorStore.from_params(
        connection_string=asked["sqlalchemy_url"],
        async_connection_string=asked["sqlalchemy_url"].replace("psycopg2", "asyncpg"),
        table_name=asked["table"],
        embed_dim=asked["dimensions"],
        use_halfvec=True,
        hnsw_kwargs=index if asked["indexed"] else None,
    )
    model = OpenAIEmbedding(
        model="text-embedding-3-small",
        dimensions=asked["dimensions"],
        api_base=asked["base_url"],
        api_key="bench",
        embed_batch_size=2048,
    )
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=256, chunk_overlap=32), model],
        vector_store=store,
        disable_cache=True,
    )
    store.add([])  # makes the table and its index
    pipeline.run(documents=[Document(text="warm up", id_="warm-up")])
    documents = [Document(text=text, id_=f"n{at}") for at, text in enumerate(asked["texts"])]
    began = time.perf_counter()
    nodes = pipeline.run(documents=documents)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "chunks": len(nodes)}))


if __name__ == "__main__":
    main()
