"""What a benchmark measured passes through here: held against its bars, printed, and told as one JSON object last."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise: `value` must reach `bar`, or stay at or below it when `below`.

    A peer that is not installed measures `nan`, which reaches no bar: a comparison that did not happen is not won.
    """

    name: str
    value: float
    bar: float
    below: bool = False

    @property
    def ok(self) -> bool:
        """Whether it is kept."""
        if math.isnan(self.value):
            return False
        return self.value <= self.bar if self.below else self.value >= self.bar


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every benchmark takes; its own are added to what this returns."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="every bar, smaller: under five minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    return parser


def report(benchmark: str, bars: Sequence[Bar], *, as_json: bool) -> int:
    """Print what was measured; returns the exit code: 0 when every bar is kept."""
    for bar in bars:
        limit = f"{'≤' if bar.below else '≥'} {bar.bar:g}"
        print(f"{'ok  ' if bar.ok else 'FAIL'} {bar.name}: {bar.value:,.3g} ({limit})")
    if as_json:
        machine = {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
        shown = [
            {
                "name": bar.name,
                "value": None if math.isnan(bar.value) else bar.value,
                "bar": bar.bar,
                "below": bar.below,
                "ok": bar.ok,
            }
            for bar in bars
        ]
        print(json.dumps({"benchmark": benchmark, "bars": shown, "machine": machine}))
    return 0 if all(bar.ok for bar in bars) else 1
