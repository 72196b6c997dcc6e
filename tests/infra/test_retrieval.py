from __future__ import annotations

from typing import Any

import pytest

from infra.database import Database
from infra.filters import OPERATORS
from infra.llm import ModelApi
from infra.local.model.faults_client import Faults
from infra.retrieval import Retriever, search
from schemas.errors import BadInput, ModelAway, NotFound, Permanent
from tests.conftest import NewTenant
from tests.infra.library import Library
from workers.handling import Resources

TEXTS = {
    "cats": ["A cat sleeps most of the day and hunts at night.", "Kittens are weaned after eight weeks."],
    "bread": ["Sourdough bread rises for twelve hours before it is baked."],
    "part": ["Order the gasket under the number XK-4711 from the depot in Bergen."],
    "tax": ["Value added tax is charged at nineteen percent on most goods."],
}
METADATA: dict[str, dict[str, Any]] = {
    "cats": {"topic": "animals", "year": 2021},
    "bread": {"topic": "food", "year": 2023},
    "part": {"topic": "parts", "year": 2024, "draft": True},
}


@pytest.fixture
async def empty_library(resources: Resources, owner_database: Database, new_tenant: NewTenant) -> Library:
    """A tenant without documents."""
    assert resources.models is not None
    retriever = Retriever(resources.database, resources.models, resources.budget)
    return Library(owner_database, resources.models, retriever, await new_tenant())


@pytest.fixture
async def library(empty_library: Library) -> Library:
    """A tenant with a few documents."""
    await empty_library.put(TEXTS, metadata=METADATA)
    return empty_library


@pytest.mark.parametrize("mode", ["hybrid", "vector"])
async def test_a_question_finds_what_it_means(library: Library, mode: str) -> None:
    """The nearest passage comes first, with everything that a citation needs."""
    [first, *_] = await library.search("When do felines rest?", mode=mode)
    assert ("cats", "docs", 0, "cats", METADATA["cats"]) == (
        first.document_id, first.collection, first.position, first.title, first.metadata,
    )  # fmt: skip
    assert first.text == TEXTS["cats"][0]
    assert first.similarity is not None
    assert 0.2 < first.similarity <= 1


@pytest.mark.parametrize("mode", ["hybrid", "text"])
async def test_a_rare_word_finds_its_passage(library: Library, mode: str) -> None:
    """A part number that says nothing to an embedding is found by its letters."""
    [first, *_] = await library.search("xk-4711", mode=mode)
    assert first.document_id == "part"
    assert first.coverage == 1.0


async def test_words_alone_ask_no_model(library: Library, faults: Faults) -> None:
    """Full-text search is free."""
    await faults.reset_calls()
    found = await library.find("bread", mode="text")
    assert ["bread"] == [passage.document_id for passage in found.passages]
    assert found.passages[0].similarity is None
    assert (0, 0) == (await faults.requests("embeddings"), found.embed_tokens)


async def test_passages_come_in_order_and_no_more_than_asked_for(library: Library) -> None:
    """Scores fall, and top_k is a limit."""
    found = await library.search("A cat sleeps, bread rises and tax is charged", top_k=3)
    assert len(found) == 3
    assert sorted((one.score for one in found), reverse=True) == [one.score for one in found]


async def test_the_same_text_is_one_passage(library: Library) -> None:
    """A text that stands in several documents is found once."""
    await library.put({"copy": TEXTS["bread"], "other copy": TEXTS["bread"]}, collection="copies")
    found = await library.documents("How long does sourdough rise?", "docs", "copies")
    assert 1 == sum(name in {"bread", "copy", "other copy"} for name in found)


async def test_collections_are_searched_together(library: Library) -> None:
    """Only the collections that are named, each in its own language."""
    await library.put(
        {"katze": ["Die Katze schläft in den Häusern der Nachbarn."]}, collection="de", config="german"
    )
    assert "katze" not in await library.documents("Haus der Katze")
    assert ["katze"] == await library.documents("Haus", "de", mode="text")
    both = await library.documents("Haus cats", "de", "docs", mode="text")
    assert {"katze", "cats"} == set(both)


async def test_collections_of_two_embedding_spaces_are_searched_together(library: Library) -> None:
    """The question is embedded once in each space; the results are one list."""
    await library.put({"dogs": ["A dog sleeps half of the day."]}, collection="small", dimensions=64)
    found = await library.find("Which animal sleeps most of the day?", "docs", "small", top_k=2)
    assert {"cats", "dogs"} == {passage.document_id for passage in found.passages}


async def test_a_filter_narrows_a_search(library: Library) -> None:
    """Only passages of documents that pass are found, by either search."""
    asked = "What sleeps, rises, or is charged?"
    for mode in ("hybrid", "vector", "text"):
        assert set(await library.documents(asked, filter={"topic": "food"}, mode=mode)) <= {"bread"}
    assert ["bread"] == await library.documents(asked, filter={"topic": "food"})
    assert {"cats", "bread"} == set(await library.documents(asked, filter={"year": {"$lt": 2024}}))
    assert [] == await library.documents(asked, filter={"topic": "none"})


async def test_no_filter_and_no_mode_reaches_another_tenant(library: Library, new_tenant: NewTenant) -> None:
    """Another tenant's collection of the same name, with the same words, is never found, whatever the operator."""
    other = Library(library.owner, library.models, library.retriever, await new_tenant())
    secret = {"topic": "animals", "owner": {"team": "x"}, "tags": ["a"], "year": 2021}
    await other.put({"secret": ["A cat sleeps most of the secret day."]}, metadata={"secret": secret})
    operands: dict[str, Any] = {"$in": ["animals"], "$nin": ["none"], "$exists": True, "$contains": "a"}
    conditions: list[Any] = [
        None,
        {"$not": {"topic": "none"}},
        {"owner.team": "x"},
        {"tags": {"$contains": "a"}},
    ]
    conditions += [{"$or": [{"topic": "animals"}, {"$not": {"topic": "animals"}}]}]
    conditions += [
        {"topic": {name: operands.get(name, "animals")}}
        for name in OPERATORS
        if name not in {"$and", "$or", "$not"}
    ]
    for condition in conditions:
        for mode in ("hybrid", "vector", "text"):
            assert "secret" not in await library.documents(
                "cat sleeps secret day", filter=condition, mode=mode
            )
    assert ["secret"] == await other.documents("cat sleeps", mode="text")
    with pytest.raises(NotFound):
        await other.search("cat", "copies")


async def test_the_search_function_needs_exactly_one_tenant(
    library: Library, new_tenant: NewTenant, worker_database: Database
) -> None:
    """A transaction without a tenant, or with two, finds nothing: the function has no argument to name one."""
    [space_id] = [one.space_id for one in await library.retriever.look_up(library.tenant, ["docs"])]
    found = []
    for tenants in ((library.tenant,), (), (library.tenant, await new_tenant())):
        async with worker_database.transaction(*tenants) as connection:
            rows = await connection.fetch(
                "SELECT * FROM search_passages(ARRAY['docs'], $1, NULL, 'cat bread tax', 'text', 10, NULL)",
                space_id,
            )
        found.append(len(rows))
    assert [3, 0, 0] == found


async def test_a_search_in_one_statement_leaves_no_tenant_behind(
    library: Library, worker_database: Database
) -> None:
    """It acts for the tenant that it names until it ends; the connection's next user sees nothing of that tenant."""
    rows = await worker_database.read(library.tenant, "SELECT name FROM prepare_for($1, ARRAY['docs'], 'k')")
    assert ["docs"] == [row["name"] for row in rows]
    async with worker_database.connection() as connection:
        assert "" == (await connection.fetchval("SELECT current_setting('app.tenants', true)") or "")
        assert 0 == await connection.fetchval("SELECT count(*) FROM collections")
    with pytest.raises(Permanent):
        await worker_database.read("a,b", "SELECT name FROM prepare_for($1, ARRAY['docs'], 'k')")


@pytest.mark.parametrize(
    "function",
    ["search_near", "search_words", "search_terms", "search_scope", "search_condition", "search_share"],
)
async def test_the_parts_of_a_search_are_nobodys_to_call(owner_database: Database, function: str) -> None:
    """Functions that take a tenant as an argument may be called by the search function alone."""
    async with owner_database.connection() as connection:
        may = await connection.fetch(
            "SELECT r.rolname FROM pg_proc p, pg_roles r WHERE p.proname = $1"
            " AND r.rolname LIKE 'penstock\\_%' AND r.rolname NOT IN ('penstock_owner')"
            " AND has_function_privilege(r.oid, p.oid, 'EXECUTE')",
            function,
        )
    assert may == []


@pytest.mark.parametrize(
    "question",
    [
        "'; DROP TABLE chunks; --",
        "a & | ! ( ) : * <->",
        "\\ \\\\ '\\''",
        "the of and",
        "🐈 ☃",
        "?",
        "x" * 30_000,
        "\u202e\ufeff",
    ],
    ids=lambda text: text[:12],
)
async def test_any_question_can_be_asked(library: Library, question: str) -> None:
    """Operators, quotes, stop words alone, symbols, a very long word: found or not, never an error."""
    for mode in ("hybrid", "text"):
        assert len(await library.search(question, mode=mode)) <= 8


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"question": "  "}, "question"),
        ({"question": "a\x00b"}, "question"),
        ({"question": "\ud800"}, "question"),
        ({"question": "x" * 40_000}, "question"),
        ({"question": "x", "top_k": 0}, "top_k"),
        ({"question": "x", "top_k": 101}, "top_k"),
        ({"question": "x", "mode": "magic"}, "mode"),
        ({"question": "x", "filter": {"$bad": 1}}, "filter.$bad"),
    ],
)
async def test_bad_questions_are_named(library: Library, arguments: dict[str, Any], field: str) -> None:
    """The field at fault is in the error, before anything is paid."""
    with pytest.raises(BadInput) as caught:
        await library.search(**arguments)
    assert field == caught.value.field


async def test_an_unknown_collection_is_not_found(library: Library, resources: Resources) -> None:
    """Named in the error; one unknown among known ones is enough."""
    assert isinstance(resources.models, ModelApi)
    with pytest.raises(NotFound) as caught:
        await search(
            resources.database, resources.models, resources.budget, library.tenant, ["docs", "nope"], "cat"
        )
    assert "nope" in caught.value.message


async def test_the_gateway_searches_as_a_worker_does(
    library: Library, resources: Resources, gateway_database: Database
) -> None:
    """The same function, as the other role."""
    assert resources.models is not None
    found = await search(
        gateway_database,
        resources.models,
        resources.budget,
        library.tenant,
        ["docs"],
        "Who sleeps all day?",
        top_k=1,
    )
    assert ["cats"] == [passage.document_id for passage in found]
    assert {"document_id", "chunk_id", "text", "heading", "page", "score", "metadata"} <= found[
        0
    ].as_dict().keys()


async def test_the_embedding_of_a_question_is_booked(library: Library, resources: Resources) -> None:
    """What was used is in the tenant's usage."""
    found = await library.find("Who sleeps all day?")
    await resources.budget.flush()
    sql = "SELECT calls, tokens_in FROM usage WHERE tenant_id = $1 AND purpose = 'embed'"
    async with library.owner.connection() as connection:
        row = await connection.fetchrow(sql, library.tenant)
    assert row is not None
    assert (1, found.embed_tokens) == tuple(row)


async def test_a_model_that_is_away_is_said(library: Library, faults: Faults) -> None:
    """A search that cannot embed its question fails as a whole."""
    async with faults.during("embeddings", "500"):
        with pytest.raises(ModelAway):
            await library.search("cat")


async def test_an_empty_collection_is_no_error(empty_library: Library) -> None:
    """Nothing is found."""
    await empty_library.put({})
    assert await empty_library.search("cat") == []
