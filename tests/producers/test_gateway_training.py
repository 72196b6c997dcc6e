from __future__ import annotations

from typing import Any

from tests.drive import Drive
from tests.producers.clients import Client, NewClient


def example(number: int) -> dict[str, Any]:
    """A training example of its own."""
    return {
        "messages": [
            {"role": "user", "content": f"How long is river number {number}?"},
            {"role": "assistant", "content": f"It is {number * 7} kilometres long."},
        ]
    }


async def test_examples_are_recorded_counted_and_reviewed(client: Client, drive: Drive) -> None:
    """Recorded examples are counted by state; a reviewer's verdict moves them."""
    await drive.use("train")
    put = await client.call("PUT", "/v1/datasets/rivers", json={"threshold": 50, "approval": "manual"})
    assert (put.status_code, put.json()["threshold"]) == (200, 50)
    one = await client.call("POST", "/v1/datasets/rivers/examples", json=example(0))
    many = await client.call(
        "POST", "/v1/datasets/rivers/examples", json={"examples": [example(n) for n in range(6)]}
    )
    assert [one.status_code, many.status_code] == [202, 202]
    assert [result["status"] for result in many.json()["results"]] == ["duplicate", *["accepted"] * 5]
    await drive.settle(client.tenant)
    shown = (await client.call("GET", "/v1/datasets/rivers")).json()
    assert sum(sum(splits.values()) for splits in shown["examples"].values()) == 6
    listed = (await client.call("GET", "/v1/datasets/rivers/examples", params={"limit": 4})).json()
    rest = await client.call(
        "GET", "/v1/datasets/rivers/examples", params={"limit": 4, "cursor": listed["next_cursor"]}
    )
    ids = [item["example_id"] for item in [*listed["items"], *rest.json()["items"]]]
    assert (len(ids), len(set(ids))) == (6, 6)
    verdict = {"verdict": "withdraw", "example_ids": ids[:2]}
    reviewed = await client.call("POST", "/v1/datasets/rivers/examples/review", json=verdict)
    assert sorted(reviewed.json()["changed"]) == sorted(ids[:2])
    withdrawn = await client.call("GET", "/v1/datasets/rivers/examples", params={"status": "withdrawn"})
    assert sorted(item["example_id"] for item in withdrawn.json()["items"]) == sorted(ids[:2])


async def test_a_bad_example_is_refused_beside_good_ones(client: Client) -> None:
    """Several examples have a result each; one alone is a problem that names its field."""
    wrong = {"messages": [{"role": "poet", "content": "x"}, {"role": "assistant", "content": "y"}]}
    mixed = await client.call("POST", "/v1/datasets/d/examples", json={"examples": [example(1), wrong]})
    assert [one["status"] for one in mixed.json()["results"]] == ["accepted", "rejected"]
    assert mixed.json()["results"][1]["error"]["field"] == "messages.0.role"
    alone = await client.call("POST", "/v1/datasets/d/examples", json=wrong)
    assert (alone.status_code, alone.json()["field"]) == (400, "messages.0.role")
    bodies: list[Any] = [{}, [], {"examples": []}, {"examples": [example(1)], "more": 1}]
    for body in bodies:
        refused = await client.call("POST", "/v1/datasets/d/examples", json=body)
        assert (body, refused.status_code) == (body, 400)


async def test_settings_of_datasets_are_checked(client: Client) -> None:
    """What a dataset cannot be set to is refused by name, and unknown datasets are a 404."""
    for body, field in (
        ({"threshold": 0}, "threshold"),
        ({"approval": "never"}, "approval"),
        ({"treshold": 5}, "treshold"),
    ):
        refused = await client.call("PUT", "/v1/datasets/d", json=body)
        assert (body, refused.status_code, refused.json()["field"]) == (body, 400, field)
    for path in ("/v1/datasets/none", "/v1/datasets/none/examples"):
        assert (await client.call("GET", path)).status_code == 404


async def test_runs_and_models_are_empty_or_unknown_at_first(client: Client, new_client: NewClient) -> None:
    """Before any training there are no runs, `chat` means the default model, and unknown ids are a 404."""
    assert (await client.call("GET", "/v1/training/runs")).json() == {"items": [], "next_cursor": None}
    models = (await client.call("GET", "/v1/models")).json()
    assert (models["items"], [one["alias"] for one in models["aliases"]]) == ([], ["chat"])
    unknown = "01890000-0000-7000-8000-000000000000"
    for method, path in (
        ("GET", f"/v1/training/runs/{unknown}"),
        ("POST", f"/v1/training/runs/{unknown}/cancel"),
        ("POST", f"/v1/training/runs/{unknown}/promote"),
        ("POST", "/v1/models/chat/rollback"),
        ("GET", "/v1/training/runs/x"),
    ):
        answer = await client.call(method, path)
        assert (path, answer.status_code) == (path, 404)
    asker = await new_client(["query"])
    assert (await asker.call("GET", "/v1/models")).status_code == 200
    assert (await asker.call("POST", "/v1/models/chat/rollback")).status_code == 403


async def test_templates_are_kept_in_versions(client: Client) -> None:
    """A changed template is a new version, the same one again is none, and `default` is always there."""
    default = (await client.call("GET", "/v1/templates/default")).json()
    assert (default["name"], default["version"]) == ("default", 0)
    versions = []
    for system in ("Be brief.", "Be brief.", "Be very brief."):
        put = await client.call("PUT", "/v1/templates/short", json={"system": system})
        versions.append(put.json()["version"])
    assert versions == [1, 1, 2]
    listed = (await client.call("GET", "/v1/templates")).json()["items"]
    assert [(one["name"], one["version"], one["body"]["system"]) for one in listed] == [
        ("short", 2, "Be very brief.")
    ]
    assert (await client.call("GET", "/v1/templates/none")).status_code == 404
    refused = await client.call("PUT", "/v1/templates/short", json={"system": ""})
    assert (refused.status_code, refused.json()["field"]) == (400, "template.system")


async def test_datasets_and_models_come_in_pages(client: Client) -> None:
    """By name, as many as are asked for; a cursor of another listing and an unknown parameter are refused."""
    for name in ("c", "a", "b"):
        assert (await client.call("PUT", f"/v1/datasets/{name}", json={"threshold": 50})).status_code == 200
    first = (await client.call("GET", "/v1/datasets", params={"limit": 2})).json()
    rest = await client.call("GET", "/v1/datasets", params={"limit": 2, "cursor": first["next_cursor"]})
    assert ["a", "b", "c"] == [one["dataset"] for one in [*first["items"], *rest.json()["items"]]]
    assert rest.json()["next_cursor"] is None
    models = await client.call("GET", "/v1/models", params={"limit": 1})
    assert ([], None) == (models.json()["items"], models.json()["next_cursor"])
    for path in ("/v1/datasets", "/v1/models"):
        assert (await client.call("GET", path, params={"cursor": "WzFd"})).status_code == 400
        assert (await client.call("GET", path, params={"colour": "red"})).status_code == 422
