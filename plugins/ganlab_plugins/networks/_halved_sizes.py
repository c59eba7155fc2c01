"""Sizes of images that convolutional networks make by doubling a smallest map, and mirror by halving: any proportions.

Decisions:
- The shorter side of the smallest map is 4 to 7, which says how many doublings there are. Both sides must be
  divisible by as many halvings.
"""

from __future__ import annotations

from itertools import product

SMALLEST = range(4, 8)
"""The shorter side of the smallest map."""


def smallest_map(height: int, width: int) -> tuple[int, int, int] | None:
    """Height and width of the smallest map and the number of doublings to images of this size; None for no such map."""
    doublings = min(height, width).bit_length() - SMALLEST.start.bit_length()
    if doublings < 1 or height % 2**doublings or width % 2**doublings:
        return None
    return height // 2**doublings, width // 2**doublings, doublings


def nearest_sizes(height: int, width: int, doublings: int | None = None) -> str:
    """The two sizes next to this one that have a smallest map, in words; with so many doublings where that is given."""
    own = max(1, min(height, width).bit_length() - SMALLEST.start.bit_length())
    found = set()
    for number in (own - 1, own, own + 1) if doublings is None else (doublings,):
        step = 2 ** max(1, number)
        low, high = SMALLEST.start * step, SMALLEST[-1] * step
        rows, columns = (
            {max(low, side // step * step), max(low, -(-side // step) * step), high} for side in (height, width)
        )
        found |= {size for size in product(rows, columns) if low <= min(size) <= high}
    near = sorted(found, key=lambda size: (max(abs(size[0] - height), abs(size[1] - width)), size))
    return " and ".join(f"{rows}x{columns}" for rows, columns in near[:2])
