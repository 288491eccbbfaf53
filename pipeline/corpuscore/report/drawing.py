"""Pictures of a report as inline SVG: no script, no file beside the page, sharp at every size."""

from __future__ import annotations

import math
from collections.abc import Sequence

_WIDTH, _HEIGHT = 720, 120


def skyline(values: Sequence[float], label: str) -> str:
    """Columns of equal width, such as documents a second over time; empty where there are none.

    Args:
        values: Heights, 0 or more.
        label: What a screen reader says in place of the picture.
    """
    highest = max(values, default=0.0)
    if not highest:
        return ""
    step = _WIDTH / len(values)
    columns = "".join(
        f'<rect x="{at * step:.1f}" y="{_HEIGHT * (1 - value / highest):.1f}" width="{max(step - 1, 0.5):.1f}" '
        f'height="{_HEIGHT * value / highest:.1f}"/>'
        for at, value in enumerate(values)
    )
    return (
        f'<svg class="skyline" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{columns}</svg>'
    )


def spark(values: Sequence[int], label: str) -> str:
    """Columns in a line of text, such as documents by score; heights are logarithms, so that few show beside many."""
    highest = math.log1p(max(values, default=0))
    if not highest:
        return ""
    columns = "".join(
        f'<rect x="{at}" y="{20 * (1 - height):.1f}" width=".8" height="{20 * height:.1f}"/>'
        for at, height in enumerate(math.log1p(value) / highest for value in values)
    )
    return (
        f'<svg class="spark" viewBox="0 0 {len(values)} 20" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{columns}</svg>'
    )


def bar(share: float) -> str:
    """A bar of a share between 0 and 1 of the room that there is."""
    width = 100 * min(max(share, 0.0), 1.0)
    return f'<span class="bar"><span style="width:{width:.1f}%"></span></span>'
