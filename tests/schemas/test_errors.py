import re

import pytest

from schemas import errors
from schemas.errors import Misconfigured, PenstockError, Permanent, Retryable


def drawn_tree() -> dict[str, str | None]:
    """Class → parent, as the module's docstring draws it."""
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^ {4}([│├└─ ]*)([A-Z][A-Za-z]+)", line)
        if match is None:
            continue
        depth = len(match[1])
        while above and above[-1][0] >= depth:
            above.pop()
        parents[match[2]] = above[-1][1] if above else None
        above.append((depth, match[2]))
    return parents


def classes(root: type[PenstockError] = PenstockError) -> list[type[PenstockError]]:
    """Every class of the tree that this module defines."""
    found = [root] if root.__module__ == errors.__name__ else []
    return found + [one for child in root.__subclasses__() for one in classes(child)]


def test_the_drawn_tree_is_the_tree() -> None:
    """Each class stands in the docstring under its parent, and nothing else does."""
    actual = {one.__name__: None if one is PenstockError else one.__mro__[1].__name__ for one in classes()}
    assert actual == drawn_tree()


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_a_title_and_one_branch(kind: type[PenstockError]) -> None:
    """The title is a sentence; below the root an error is either retryable or permanent."""
    assert re.fullmatch(r"[a-z_]+", kind.code)
    assert kind.title()
    assert 400 <= kind.status < 600
    assert kind is PenstockError or issubclass(kind, Retryable) != issubclass(kind, Permanent)


def test_codes_are_unique() -> None:
    """A stored code leads back to one class."""
    codes = [one.code for one in set(classes())]  # one class may stand on two branches
    assert sorted(set(codes)) == sorted(codes)


def test_an_error_shows_field_and_fix_only_where_it_has_them() -> None:
    """What is stored in the ledger has no empty fields."""
    assert {"code": "misconfigured", "message": "A setting is missing or wrong"} == Misconfigured().as_dict()
    full = Misconfigured("no", field="DATABASE_URL", fix="set it").as_dict()
    assert {"code": "misconfigured", "message": "no", "field": "DATABASE_URL", "fix": "set it"} == full
