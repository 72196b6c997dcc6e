"""`AsyncClient`, in parts; `sync` is written from these files.

transport   one connection pool, retries, errors
publishing  events, one or many, and what became of them
knowledge   documents, collections, search
questions   asking, waiting, streaming, feedback
learning    datasets, examples, runs, models
hooks       webhook endpoints and deliveries
client      all of it together
"""
