"""The data of events that Penstock sends to itself: steps of longer work, and letters. The gate refuses them from outside."""

from __future__ import annotations

from schemas.values import NonEmpty, Shape


class DeliveryDue(Shape):
    """A delivery should be attempted."""

    delivery_id: NonEmpty


class TrainingAdvance(Shape):
    """A training run should take its next step; while it is watched, the same event comes due again and again."""

    run_id: NonEmpty


class StreamRefused(Shape):
    """A stream entry that cannot be an event, kept as it came: a dead letter from its beginning."""

    stream: NonEmpty
    entry_id: NonEmpty
    fields: dict[str, str]
