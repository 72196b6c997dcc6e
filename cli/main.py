"""The tree of commands: each sub-app is imported when it is called for, so that `penstock --help` answers at once."""

from __future__ import annotations

import sys

import typer

from cli import (
    accounts,
    bridge,
    client,
    dead,
    doctor,
    erase,
    governor,
    local,
    operate,
    queues,
    serve,
    spaces,
    training,
)
from cli.demo import command as demo
from cli.run import FAILED, INTERRUPTED, stop_with_message
from schemas.errors import PenstockError

app = typer.Typer(
    name="penstock",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Documents become searchable knowledge, questions become cited answers, examples become a better model.\n\n"
    "Try `penstock demo` first; it needs nothing. `penstock up` starts a local stack to develop against.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

demo.add_to(app)
local.add_to(app)
serve.add_to(app)
bridge.add_to(app)
doctor.add_to(app)
client.add_to(app)
operate.add_to(app)
queues.add_to(app)
governor.add_to(app)
spaces.add_to(app)
dead.add_to(app)
training.add_to(app)
accounts.add_to(app)
erase.add_to(app)


def main() -> None:
    """Run the command line; an error of ours becomes one line and an exit code."""
    try:
        app(standalone_mode=True)
    except PenstockError as error:
        sys.exit(stop_with_message(error).exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
