import pytest

from infra.concurrency import parse_limits
from infra.settings import load_settings
from schemas.errors import Misconfigured


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", {}),
        ("type document.added=8", {"type document.added": 8}),
        (" tenant *=16 , tenant acme = 4,", {"tenant *": 16, "tenant acme": 4}),
    ],
)
def test_limits_are_read(text: str, limits: dict[str, int]) -> None:
    """Types, tenants, and each tenant that is not named."""
    assert limits == parse_limits(text)


@pytest.mark.parametrize(
    "text", ["acme=4", "tenant acme", "tenant acme=0", "tenant ACME=4", "tenant=4", "type *=x"]
)
def test_a_limit_that_nobody_can_read_stops_the_process(text: str) -> None:
    """The setting is named, and what an entry looks like."""
    with pytest.raises(Misconfigured) as caught:
        load_settings(limits=f"tenant b=1, {text}")
    assert ("PENSTOCK_LIMITS", True) == (caught.value.field, "tenant T=N" in caught.value.message)
