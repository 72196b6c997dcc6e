"""A model's name and its tokens become micro-dollars here, by a dated price file; the budget adds them up."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal, TypeAlias

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import Misconfigured

Purpose: TypeAlias = Literal["embed", "chat", "judge", "train"]

BUILT_IN = Path(__file__).parent / "prices.json"
_DATED = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")
_log = structlog.get_logger("penstock.prices")


class ModelPrice(BaseModel):
    """US dollars for a million tokens; for training, for a million trained tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    tokens_in: float = Field(0.0, ge=0, alias="in")
    tokens_out: float = Field(0.0, ge=0, alias="out")
    train: float = Field(0.0, ge=0)


class _PriceFile(BaseModel):
    model_config = ConfigDict(extra="ignore")

    date: date
    currency: Literal["USD"]
    per_tokens: Literal[1_000_000]
    models: dict[str, ModelPrice]


@dataclass(frozen=True, slots=True)
class Prices:
    """What models cost on a day.

    Attributes:
        dated: the day on which the prices were read from the provider's page.
        models: model name → price.
    """

    dated: date
    models: dict[str, ModelPrice]
    _unknown: set[str] = field(default_factory=set, repr=False, compare=False)

    def find(self, model: str) -> ModelPrice:
        """The price of a model; 0 for an unknown one, with one warning for each.

        A dated name falls back to its undated one, a tuned model to the tuned price of its base, then to the base.
        """
        for name in names(model):
            if name in self.models:
                return self.models[name]
        if model not in self._unknown:
            self._unknown.add(model)
            _log.warning("budget.price_unknown", model=model, prices_dated=self.dated.isoformat())
        return _FREE

    def micros(self, purpose: Purpose, model: str, tokens_in: int, tokens_out: int = 0) -> float:
        """Micro-dollars for a call. Dollars per million tokens are micro-dollars per token."""
        price = self.find(model)
        if purpose == "train":
            return tokens_in * price.train
        return tokens_in * price.tokens_in + tokens_out * price.tokens_out


_FREE = ModelPrice.model_validate({})


def names(model: str) -> list[str]:
    """The names under which a model's price may be listed, best first."""
    if model.startswith("ft:"):
        base = model.split(":")[1]
        return [model, f"ft:{base}", f"ft:{_DATED.sub('', base)}", *names(base)]
    undated = _DATED.sub("", model)
    return [model] if undated == model else [model, undated]


def load_prices(path: Path | None = None) -> Prices:
    """Read a price file; the built-in one unless a path is given.

    Raises:
        Misconfigured: the file cannot be read or breaks the format; names ``PENSTOCK_PRICES``.
    """
    try:
        parsed = _PriceFile.model_validate(json.loads((path or BUILT_IN).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = "breaks the format" if isinstance(error, ValidationError) else type(error).__name__
        raise Misconfigured(
            f"the price file cannot be used ({reason})",
            field="PENSTOCK_PRICES",
            fix="see infra/prices.json for the format",
        ) from None
    return Prices(parsed.date, parsed.models)
