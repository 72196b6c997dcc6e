"""How Penstock speaks to the outside; the only home of vendor clients.

settings        the environment, once, frozen
database        PostgreSQL: roles, tenants, transactions, named queries
connections     its connections, kept at hand
migrate         numbered SQL, forward only
coalesce        many small calls become one large call
ledger          events on their way in
attempts        events with a worker: claimed, locked, finished
outbox          what an effect says next: events and deliveries
letters         stream entries that cannot be events
erasure         what somebody wants forgotten
bus             ledger first, then Redis
redis_client    redis-py, made cheap for a process that says much
redis_line      the one connection that its commands share
sweeper         pushes what a crash or an emptied Redis left behind
wire            JSON on the wire; never pickle
queue_insight   what a queue holds, in one cheap call
llm             the model API
llm_wire        its calls as bytes, on connections that stay open
llm_line        one such connection
llm_framing     where a reply ends
llm_models      what its provider says of a model
governor        the pace of all processes' calls to it
governor_rules  who goes first, and what a reply says of limits
budget          the one door before every paid call
budget_promises  asks for money, one after the other under a lock
budget_rules    whether a call fits into the limits
budget_book     what calls cost, added up and written
prices          what models cost, from a dated file
trainer         files and fine-tuning jobs
provider_hooks  signed webhooks of the model provider wake the look at a job
trainer_replies  what a trainer says, as plain values
training_store  datasets and examples, as the CLI and the gateway see them
training_runs   runs, as the CLI and the gateway see and steer them
model_aliases   an alias pointed elsewhere or back by a person
training_trigger  counts examples, fires a dataset's threshold once
response_schema the JSON schema of an answer that is not plain text
retrieval       passages for a question, in one round trip
vectors         embeddings as pgvector's wire bytes
index_policy    when a vector index is built, put off or dropped
recall          what a vector index finds, held against an exact search
reembed         stored chunks to another embedding model
spaces          embedding spaces and their vector indexes
egress          the one guarded door to addresses that a tenant supplies
secretbox       secrets at rest
signing_secrets the whsec_ secrets of webhook endpoints: made, sealed, rotated, opened
keys            API keys
log             structured logs without text or secrets
maintain        what only the owner may: partitions, retention
ops             probes, metrics and scaling figures on a port of their own
ops_fleet       one such port for several processes
operations      what an operator asks of the ledger
tenants         tenants, as an operator sees them
limits          what a tenant may have
replies         answers, kept for requests that come again
endpoints       webhook endpoints and their secrets
deliveries      messages to them, with their attempts
sealed_headers  endpoints' own headers: names in the clear, values sealed
reseal          what an earlier key sealed, or nobody, sealed by the first key
replays         webhook messages sent again
filters         metadata filters become parameters
push            ids onto arq queues, into lanes
concurrency     how many jobs of a type or tenant run at once
queue_keys      the Redis keys that are ours
llm_errors      each error of the model API has one place in our tree
llm_replies     raw replies become vectors, texts and deltas
trainer_replies raw replies of the trainer become values
training_trigger the threshold, counted under a lock
aliases         which model answers for an alias now
answers         an answer's row, or what is known before there is one
answer_stops    withdrawn questions, on their way to the worker that answers them
answer_stream   tokens, from a worker to whoever follows
collections     a collection's row, made with its embedding space
templates       prompt templates, in numbered versions
sql/            named queries and migrations
local/          what runs when you have nothing
deploy/         images and clusters
"""
