"""`penstock ask` and `penstock search`: a question goes to the gateway, and the answer is shown while it is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer

from cli.client_http import Api, open_api, part, read_json_option, refusal
from cli.show import AsJson, print_json
from schemas.errors import BadInput, CallFailed

Collection = Annotated[
    str | None, typer.Option("--collection", "-c", help="Where to look; the only one there is unless given.")
]
Filter = Annotated[
    str | None, typer.Option("--filter", help="""Condition on metadata as JSON, such as '{"lang": "en"}'.""")
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, max=100, help="Passages at most.")]
RESUMES = 5
QUOTE = 160


def ask(
    question: str,
    collection: Collection = None,
    *,
    condition: Filter = None,
    top_k: TopK = None,
    template: Annotated[str | None, typer.Option(help="A prompt template.")] = None,
    model: Annotated[str | None, typer.Option(help="A model alias; chat unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question and show the answer as it is written, with its citations."""
    given = {
        "template": template,
        "model": model,
        "top_k": top_k,
        "filter": read_json_option(condition, "--filter"),
    }
    body = {"question": question, **{name: value for name, value in given.items() if value is not None}}
    with open_api() as api:
        path = f"/v1/collections/{part(_collection(api, collection))}/queries"
        shown = _Shown(quiet=as_json)
        answer = shown.follow(stream(api, path, body))
    if as_json:
        print_json(answer)
    else:
        _tell(answer)
    if answer["status"] == "failed":
        error = answer.get("error") or {}
        raise CallFailed(f"no answer: {error.get('message', 'failed')}", field=error.get("field"))


def search(
    question: str,
    collection: Collection = None,
    *,
    condition: Filter = None,
    top_k: TopK = None,
    mode: Annotated[str, typer.Option(help="hybrid, vector or text.")] = "hybrid",
    as_json: AsJson = False,
) -> None:
    """Find passages without a paid answer."""
    body = {
        "question": question,
        "mode": mode,
        "top_k": top_k or 8,
        "filter": read_json_option(condition, "--filter"),
    }
    with open_api() as api:
        path = f"/v1/collections/{part(_collection(api, collection))}/search"
        found = api.call("POST", path, body)["results"]
    if as_json:
        print_json(found)
    elif not found:
        typer.echo("Nothing fits.")
    for number, one in enumerate(() if as_json else found, start=1):
        typer.secho(f"{number}. {_place(one)}", bold=True, nl=False)
        typer.secho(f"   {one['score']:.4f}", dim=True)
        typer.echo(f"   {_short(one['text'], 400)}\n")


def _collection(api: Api, given: str | None) -> str:
    """The collection to ask.

    Raises:
        BadInput: none was named, and there is none or more than one.
    """
    if given is not None:
        return given
    names = [one["name"] for one in api.pages("/v1/collections", limit=20)]
    if len(names) == 1:
        return str(names[0])
    if not names:
        raise BadInput(
            "there is no collection yet",
            field="--collection",
            fix="publish something with `penstock publish document`",
        )
    raise BadInput(
        "there are several collections", field="--collection", fix=f"name one: {', '.join(names[:10])}"
    )


def stream(api: Api, path: str, body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The events of an answer; a lost connection is taken up again after the last event that came.

    Raises:
        GatewayRefused: the question was refused.
        CallFailed: the connection was lost again and again.
    """
    import httpx2

    method, address, last = "POST", path, ""
    sent: Mapping[str, Any] | None = body
    for _ in range(RESUMES):
        headers = {"accept": "text/event-stream", **({"last-event-id": last} if last else {})}
        try:
            with api.http.stream(method, address, json=sent, headers=headers) as answer:
                if answer.is_error:
                    raise refusal(answer.status_code, answer.read())
                method, address, sent = "GET", answer.headers["location"], None
                for event_id, event, data in read_events(answer.iter_lines()):
                    last = event_id
                    yield event, data
                    if event in {"done", "error"}:
                        return
        except httpx2.TransportError as error:
            if method == "POST":  # asking again could ask twice
                raise api.unreachable(error) from None
    raise CallFailed(
        "the connection was lost again and again", fix="ask again; the answer may be there by now"
    )


def read_events(lines: Iterable[str]) -> Iterator[tuple[str, str, Any]]:
    """Server-sent events as (id, event, data); comments and retry hints are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "event" in fields:
            yield fields.get("id", ""), fields["event"], json.loads(fields["data"])
        fields = {}


class _Shown:
    """Shows an answer while it comes."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._text = ""

    def follow(self, events: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        """Show tokens as they come; the whole answer at the end."""
        for event, data in events:
            if event == "token":
                self._write(str(data.get("text", "")))
            elif event == "restart":
                if self._text:
                    self._write("\n(starting over)\n")
                self._text = ""
            elif event in {"done", "error"}:
                # What the model wrote is checked afterwards, so the answer may differ from its tokens.
                final = str(data.get("answer") or "")
                if final and final.strip() != self._text.strip():
                    self._write(f"{chr(10) * 2 if self._text else ''}{final}")
                return dict(data)
        raise CallFailed("the stream ended without an answer")

    def _write(self, text: str) -> None:
        self._text += text
        if not self._quiet:
            typer.echo(text, nl=False)


def _tell(answer: Mapping[str, Any]) -> None:
    typer.echo()
    if answer["status"] == "abstained":
        typer.secho("Nothing relevant was found, so there is no answer.", dim=True)
    for number, one in enumerate(answer["citations"], start=1):
        typer.secho(f"\n[{one.get('marker', number)}] {_place(one)}", bold=True)
        typer.echo(f"    “{_short(one['quote'], QUOTE)}”")
    if answer.get("model"):
        total = (answer.get("timings_ms") or {}).get("total")
        took = f", {total:.0f} ms" if isinstance(total, int | float) else ""
        typer.secho(f"\n{answer['model']}{took}", dim=True)


def _place(one: Mapping[str, Any]) -> str:
    page = f"page {one['page']}" if one.get("page") else None
    return " · ".join(str(known) for known in (one["document_id"], one.get("heading"), page) if known)


def _short(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
