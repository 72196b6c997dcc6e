"""`penstock datasets …`: datasets are set up, and their examples reviewed, through the gateway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import orjson
import typer

from cli.client_http import Api, GatewayRefused, open_api, part
from cli.show import AsJson, print_fields, print_json, print_rows
from schemas.errors import BadInput

app = typer.Typer(
    no_args_is_help=True, help="Datasets: examples, and when to train on them. Needs the admin key."
)
COLUMNS = ("dataset", "base_model", "threshold", "approval", "alias", "failures", "counts")
EXAMPLES = ("example_id", "status", "split", "question", "answer", "reason")
Threshold = Annotated[int | None, typer.Option(min=1, help="New valid examples that start a run.")]
Approval = Annotated[
    str | None, typer.Option(help="manual: feedback waits for review; automatic: it counts at once.")
]
BaseModel = Annotated[str | None, typer.Option(help="The model that is tuned.")]
MaxAge = Annotated[float | None, typer.Option(min=0, help="Hours after which waiting examples start a run.")]
More = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any further setting as NAME=VALUE: alias, minimum, holdout_minimum, max_failures, margin, epochs,"
        " screening (quarantine or redact), near_duplicate, key_share, budget_month, collections.",
    ),
]
Cooldown = Annotated[float | None, typer.Option(min=0, help="Seconds between two runs at least.")]


@app.command("list")
def list_all(*, as_json: AsJson = False) -> None:
    """List the datasets with their counts."""
    with open_api(admin=True) as api:
        rows = list(api.pages("/v1/datasets"))
    shown = rows if as_json else [{**row, "counts": _counts(row["examples"])} for row in rows]
    print_rows(shown, COLUMNS, as_json=as_json, empty="No datasets. The first example makes one.")


def _counts(examples: Mapping[str, Mapping[str, int]]) -> str:
    return ", ".join(f"{sum(splits.values())} {state}" for state, splits in sorted(examples.items()))


@app.command("create")
def create(
    name: str,
    threshold: Threshold = None,
    *,
    approval: Approval = None,
    base_model: BaseModel = None,
    max_age_hours: MaxAge = None,
    cooldown_seconds: Cooldown = None,
    more: More = None,
    as_json: AsJson = False,
) -> None:
    """Make a dataset before its first example."""
    body = _body(threshold, approval, base_model, max_age_hours, cooldown_seconds) | _more(more)
    with open_api(admin=True) as api:
        if _exists(api, name):
            raise BadInput(
                f"the dataset {name} exists already", field="NAME", fix="use `penstock datasets set`"
            )
        print_fields(api.call("PUT", f"/v1/datasets/{part(name)}", body), as_json=as_json)


@app.command("set")
def change(
    name: str,
    threshold: Threshold = None,
    *,
    approval: Approval = None,
    base_model: BaseModel = None,
    max_age_hours: MaxAge = None,
    cooldown_seconds: Cooldown = None,
    more: More = None,
    as_json: AsJson = False,
) -> None:
    """Change a dataset's settings; its threshold is looked at anew."""
    body = _body(threshold, approval, base_model, max_age_hours, cooldown_seconds) | _more(more)
    if not body:
        raise BadInput("nothing is to be set", field="options", fix="give --threshold, --approval, …")
    with open_api(admin=True) as api:
        api.call("GET", f"/v1/datasets/{part(name)}")
        print_fields(api.call("PUT", f"/v1/datasets/{part(name)}", body), as_json=as_json)


def _body(
    threshold: int | None,
    approval: str | None,
    base_model: str | None,
    max_age_hours: float | None,
    cooldown_seconds: float | None,
) -> dict[str, Any]:
    given = {
        "threshold": threshold,
        "approval": approval,
        "base_model": base_model,
        "max_age_hours": max_age_hours,
        "cooldown_seconds": cooldown_seconds,
    }
    return {name: value for name, value in given.items() if value is not None}


def _more(given: list[str] | None) -> dict[str, Any]:
    """Settings given as NAME=VALUE; a value is JSON, or else a word. The gateway knows which names there are."""
    found: dict[str, Any] = {}
    for one in given or []:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise BadInput(f"{one[:100]!r} is not NAME=VALUE", field="--set", fix="give --set margin=0.02")
        try:
            found[name] = orjson.loads(text)
        except orjson.JSONDecodeError:
            found[name] = text
    return found


def _exists(api: Api, name: str) -> bool:
    try:
        api.call("GET", f"/v1/datasets/{part(name)}")
    except GatewayRefused as error:
        if error.http_status == 404:
            return False
        raise
    return True


@app.command("review")
def review(
    name: str,
    examples: Annotated[
        list[str] | None, typer.Argument(help="Ids of examples; none lists what waits.")
    ] = None,
    *,
    approve: Annotated[bool, typer.Option("--approve", help="They count from now on.")] = False,
    quarantine: Annotated[bool, typer.Option("--quarantine", help="Never train on them.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take them back.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All that wait.")] = False,
    status: Annotated[str, typer.Option(help="Which examples wait: pending or quarantined.")] = "pending",
    as_json: AsJson = False,
) -> None:
    """List the examples that wait for a decision, or decide about them."""
    verdicts = [
        verdict
        for verdict, chosen in (("approve", approve), ("quarantine", quarantine), ("withdraw", withdraw))
        if chosen
    ]
    if len(verdicts) > 1:
        raise BadInput("give one of --approve, --quarantine and --withdraw", field="options")
    path = f"/v1/datasets/{part(name)}/examples"
    with open_api(admin=True) as api:
        if not verdicts:
            rows = list(api.pages(path, status=status))
            print_rows(
                rows if as_json else [_row(row) for row in rows],
                EXAMPLES,
                as_json=as_json,
                empty="Nothing waits.",
            )
            return
        chosen = (
            [row["example_id"] for row in api.pages(path, status=status)] if everything else examples or []
        )
        if not chosen:
            raise BadInput("no examples are named", field="EXAMPLES", fix="give their ids, or --all")
        changed = _decide(api, path, verdicts[0], chosen)
    if as_json:
        print_json({"changed": changed})
    else:
        typer.echo(f"{len(changed)} of {len(chosen)} changed")


def _decide(api: Api, path: str, verdict: str, chosen: list[str]) -> list[str]:
    changed: list[str] = []
    for start in range(0, len(chosen), 1000):
        body = {"verdict": verdict, "example_ids": chosen[start : start + 1000]}
        changed += api.call("POST", f"{path}/review", body)["changed"]
    return changed


def _row(example: Mapping[str, Any]) -> dict[str, Any]:
    messages: Iterable[Mapping[str, Any]] = example["messages"]
    said = {message["role"]: str(message.get("content") or "")[:120] for message in messages}
    return {**example, "question": said.get("user"), "answer": said.get("assistant")}
