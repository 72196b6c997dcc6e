"""The states and settings in the code become pages in `docs/`; a test fails when a page is not what the code says.

Run it with ``PYTHONPATH=. .venv/bin/python scripts/write_docs.py``.
"""

from __future__ import annotations

from pathlib import Path

from infra.settings import SECRETS, Settings
from schemas.states import TRANSITIONS, State

DOCS = Path(__file__).resolve().parents[1] / "docs"
TITLES = {
    "EventState": "Event",
    "DocumentState": "Document",
    "AnswerState": "Answer",
    "ExampleState": "Example",
    "RunState": "Training run",
    "DeliveryState": "Delivery",
    "EndpointState": "Webhook endpoint",
}
PLAIN = ("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL")


def states_page() -> str:
    """Every machine: its states with their sentences, and every transition drawn."""
    parts = [
        "# States",
        "",
        "Written from `schemas/states.py`, the only place that allows a transition, by `scripts/write_docs.py`.",
    ]
    for machine, table in TRANSITIONS.items():
        parts += [
            "",
            f"## {TITLES[machine.__name__]}",
            "",
            "```mermaid",
            "stateDiagram-v2",
            *_edges(machine, table),
            "```",
            "",
        ]
        parts += ["| state | means | then |", "|---|---|---|"]
        parts += [f"| `{state}` | {state.sentence} | {_targets(state, table)} |" for state in machine]
    return "\n".join(parts) + "\n"


def _edges(machine: type[State], table: dict[State, frozenset[State]]) -> list[str]:
    first = next(iter(machine))
    lines = [f"    [*] --> {first}"]
    for state in machine:
        lines += [f"    {state} --> {after}" for after in machine if after in table[state]]
        if not table[state]:
            lines.append(f"    {state} --> [*]")
    return lines


def _targets(state: State, table: dict[State, frozenset[State]]) -> str:
    order = list(type(state))
    return ", ".join(f"`{after}`" for after in order if after in table[state]) or "the end"


def settings_page() -> str:
    """Every setting with its default and what it means."""
    rows = ["| variable | default | means |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        plain = name.upper()
        variable = plain if plain in PLAIN else f"PENSTOCK_{plain}"
        default = "" if field.default is None else str(field.default)
        secret = " Secret." if variable in SECRETS else ""
        rows.append(f"| `{variable}` | {f'`{default}`' if default else ''} | {field.description}{secret} |")
    return (
        "# Settings\n\nWritten from `infra/settings.py` by `scripts/write_docs.py`.\n\n"
        "All settings are environment variables; a `.env` file in the working directory is read too, and the environment wins.\n"
        "Every secret may also be given as the path of a file, under the same name with `_FILE` appended.\n\n"
        + "\n".join(rows)
        + "\n"
    )


PAGES = {"states.md": states_page, "settings.md": settings_page}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
