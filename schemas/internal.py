"""The data of events that Penstock sends to itself: steps of longer work. The gate refuses them from outside."""

from __future__ import annotations

from schemas.values import NonEmpty, Shape


class DeliveryDue(Shape):
    """A delivery should be attempted."""

    delivery_id: NonEmpty


class TrainingAdvance(Shape):
    """A training run should take its next step; while it is watched, the same event comes due again and again."""

    run_id: NonEmpty
