"""The engine: `arq.Worker` made fast, and impossible to lose work with.

- `worker`       `Worker`: the main loop; takes the arguments of `arq.Worker` and more
- `types`        what passes between the engine and a runner: claimed jobs and verdicts
- `policy`       an error becomes a verdict; pure
- `store`        the Lua scripts (`scripts/`) as typed calls: claim, finish, renew
- `intake`       candidates of a claim, decoded and sorted by who runs them
- `plain`        registered functions, run as in arq
- `handover`     everything else, given to the batch runner
- `outcome`      a verdict becomes a settlement
- `outbox`       settlements on their way to Redis, many at a time
- `leases`       what is held, and its heartbeat
- `doorbell`     wakes an idle worker
- `alarm`        ends the main loop's sleep
- `link`         waits while Redis is away
- `deadletters`  jobs without a ledger row that can never succeed
- `narration`    what the log says about jobs
"""

from workers.engine.worker import Worker as Worker
