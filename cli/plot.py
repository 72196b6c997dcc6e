"""Losses of a run pass through here and leave as an SVG drawing: the same bytes for the same run."""

from __future__ import annotations

import html
from collections.abc import Sequence

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 360, 64, 40, 16, 40
COLOURS = {"training loss": "#1f6feb", "validation loss": "#d1570b"}
Loss = tuple[int, float | None, float | None]


def loss_svg(losses: Sequence[Loss], title: str) -> str:
    """Training and validation loss by step.

    Args:
        losses: (step, training loss, validation loss), in order of the steps.
        title: stands above the drawing.
    """
    curves = {
        name: [(line[0], value) for line in losses if (value := line[column]) is not None]
        for name, column in (("training loss", 1), ("validation loss", 2))
    }
    points = [point for curve in curves.values() for point in curve]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20">{html.escape(title)}</text>',
    ]
    if not points:
        return "\n".join([*parts, f'<text x="{LEFT}" y="{HEIGHT // 2}">no losses yet</text>', "</svg>", ""])
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    top = max(value for _, value in points) or 1.0

    def x(step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / max(1, last - first)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * max(0.0, value) / top

    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        level = y(top * share)
        parts.append(f'<path d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{top * share:.3g}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 12}">step {first}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 12}" text-anchor="end">{last}</text>')
    for place, (name, curve) in enumerate(curves.items()):
        if not curve:
            continue
        drawn = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in curve)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        label = f"{name} {curve[-1][1]:.3f}"
        parts.append(f'<text x="{WIDTH - 320 + 160 * place}" y="20" fill="{COLOURS[name]}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])
