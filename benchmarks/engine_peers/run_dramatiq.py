"""No-op jobs pass through dramatiq here: threads, hiredis, no results; the number of threads is the mode."""

# pyright: reportMissingImports=false

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

import dramatiq
from dramatiq import Worker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import default_middleware
from dramatiq.middleware.prometheus import Prometheus

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.engine_peers.tally import Tally, arguments


def main() -> None:
    """Enqueue, run, tell."""
    chosen = arguments()
    logging.getLogger("dramatiq").setLevel(logging.ERROR)
    tally, done, lock = Tally(chosen.count), threading.Event(), threading.Lock()
    # Retries and time limits stay, which every competitor here has on; Prometheus goes.
    middleware = [make() for make in default_middleware if make is not Prometheus]
    broker = RedisBroker(url=chosen.url, middleware=middleware)
    dramatiq.set_broker(broker)

    def noop() -> None:
        with lock:
            tally.add()
        if tally.complete:
            done.set()

    actor = dramatiq.actor(noop, broker=broker, queue_name="bench")
    for _ in range(chosen.count):
        actor.send()
    worker = Worker(broker, worker_threads=int(chosen.mode), worker_timeout=100)
    worker.start()
    done.wait()
    tally.tell()
    worker.stop()


if __name__ == "__main__":
    main()
