"""The engine: `arq.Worker` made fast, and impossible to lose work with.

- `worker`       `Worker`: the main loop; takes the arguments of `arq.Worker` and more
- `types`        what passes between the engine and a runner: claimed jobs and verdicts
- `policy`       an error becomes a verdict; pure
- `claiming`     how many jobs to claim, and the claim
- `lifetime`     how a worker begins and ends
- `schedule`     when to claim next, and how many
- `alarm`        ends the main loop's sleep
- `doorbell`     wakes an idle worker
- `store`        the Lua scripts as typed calls: claim, finish, renew
- `lua`          one Lua file of `scripts/` as a function
- `intake`       candidates of a claim, decoded and sorted by who runs them
- `plain`        registered functions, run as in arq
- `terms`        a function's timeout, tries and kept result
- `deadlines`    one timer for many timeouts
- `handover`     everything else, given to the batch runner
- `together`     a handler that takes many jobs of its type at once
- `isolation`    a suspected killer, run in a child process
- `solo`         the child's side of that
- `outcome`      a verdict becomes a settlement
- `outbox`       settlements on their way to Redis, many at a time
- `leases`       what is held, and its heartbeat
- `link`         waits while Redis is away
- `pool`         arq's client over the line that a process shares
- `deadletters`  jobs without a ledger row that can never succeed
- `tally`        counts and times of attempts, by type
- `narration`    what the log says about jobs
- `supervisor`   several processes of one worker
"""

from workers.engine.worker import Worker as Worker
