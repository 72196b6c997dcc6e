from __future__ import annotations

import pytest

from producers.gateway.etags import PreconditionFailed, check_preconditions, is_listed
from schemas.errors import BadInput
from tests.drive import Drive
from tests.producers.clients import Client

PATH = "/v1/collections/books/documents/river"


async def test_a_document_carries_its_version(client: Client, drive: Drive) -> None:
    """Unchanged it is 304; a change from an old view is 412; made anew only where there is none."""
    await drive.use("ingest")
    created = await client.call("PUT", PATH, json={"content": "One."}, headers={"if-none-match": "*"})
    assert created.status_code == 202
    await drive.settle(client.tenant)
    shown = await client.call("GET", PATH)
    tag = shown.headers["etag"]
    same = await client.call("GET", PATH, headers={"if-none-match": f'W/"other", {tag}'})
    assert (304, b"", tag) == (same.status_code, same.content, same.headers["etag"])
    refused = await client.call("PUT", PATH, json={"content": "Two."}, headers={"if-none-match": "*"})
    assert (412, "precondition_failed") == (refused.status_code, refused.json()["code"])
    changed = await client.call("PUT", PATH, json={"content": "Two."}, headers={"if-match": tag})
    assert changed.status_code == 202
    await drive.settle(client.tenant)
    assert (await client.call("GET", PATH)).headers["etag"] != tag
    stale = await client.call("DELETE", PATH, headers={"if-match": tag})
    assert stale.status_code == 412
    assert (await client.call("GET", PATH, headers={"if-none-match": tag})).status_code == 200


@pytest.mark.parametrize(
    ("values", "tag", "weak", "expected"),
    [
        (["*"], '"a"', False, True),
        (["*"], None, False, False),
        (['"a"'], '"a"', False, True),
        (['W/"a"'], '"a"', False, False),
        (['W/"a"'], '"a"', True, True),
        (['"b"', '"a"'], '"a"', False, True),
        (['"b"'], None, True, False),
    ],
)
def test_tags_in_lists(values: list[str], tag: str | None, weak: bool, expected: bool) -> None:
    """Strong and weak comparison of RFC 9110, §8.8.3.2."""
    assert expected == is_listed(values, tag, weak=weak)


@pytest.mark.parametrize("value", ["", "a", '"a', '"a" "b"', "'a'"])
def test_what_is_no_list_is_refused(value: str) -> None:
    """A mistyped precondition would protect nothing."""
    with pytest.raises(BadInput):
        is_listed([value], '"a"', weak=True)


def test_both_preconditions_are_looked_at() -> None:
    """Either may refuse."""
    check_preconditions([], [], None)
    check_preconditions(['"a"'], ['"b"'], '"a"')
    with pytest.raises(PreconditionFailed):
        check_preconditions(['"b"'], [], '"a"')
    with pytest.raises(PreconditionFailed):
        check_preconditions(["*"], [], None)
