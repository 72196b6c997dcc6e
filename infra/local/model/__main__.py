"""The command line passes through here and goes on as a running server: `python -m infra.local.model --state DIR`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import uvloop

from infra.local.model.app import Options
from infra.local.model.key import KEY_VARIABLE, USUAL_KEY
from infra.local.model.process import Listening, serve
from infra.log import configure
from schemas.errors import PenstockError


def main(arguments: list[str] | None = None) -> int:
    """Run the server until it is told to stop.

    The key comes from the environment, not from the command line, which every user of the machine can read.
    """
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.model",
        description="A local server that speaks OpenAI's protocol. It is not a language model: docs/local-model.md.",
        epilog=f"The API key is taken from {KEY_VARIABLE}; without it, it is '{USUAL_KEY}'.",
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes any free port")
    parser.add_argument("--state", type=Path, required=True, help="folder for files, jobs and tuned models")
    parser.add_argument(
        "--ready-file", type=Path, help="write the address there instead of to standard output"
    )
    parser.add_argument(
        "--train-seconds", type=float, default=3.0, help="how long training a job takes at least"
    )
    parser.add_argument("--lifeline", action="store_true", help="stop when standard input ends")
    given = parser.parse_args(arguments)
    options = Options(
        state=given.state, key=os.environ.get(KEY_VARIABLE) or USUAL_KEY, train_seconds=given.train_seconds
    )
    listening = Listening(port=given.port, ready_file=given.ready_file, lifeline=given.lifeline)
    # Standard output carries the address and nothing else.
    configure(level="warning", stream=sys.stderr)
    try:
        uvloop.run(serve(options, listening))
    except PenstockError as error:
        sys.stderr.write(f"{error.message}{f' ({error.field})' if error.field else ''} {error.fix or ''}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"The local model server cannot start: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
