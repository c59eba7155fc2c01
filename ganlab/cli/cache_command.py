"""The command `ganlab cache`: lists what the cache folder holds, and removes what is chosen by kind, age and size."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ganlab.cli.arguments import CacheKinds
from ganlab.utils.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from ganlab.utils.cache_folder import CacheEntry


def cache(
    *,
    kind: CacheKinds = None,
    unused_days: float | None = None,
    larger_gb: float | None = None,
    clear: bool = False,
    json: bool = False,
) -> int:
    """List what the cache holds, or clear it; all but downloads is computed again when it is needed.

    The cache is $GANLAB_CACHE. With $GANLAB_CACHE_GB set, commands remove the least recently used entries themselves.

    Parameters
    ----------
    kind
        Only entries of this kind, a folder of the cache: decoded, reference, floor, weights, …; can be repeated.
    unused_days
        Only entries that have not been used for at least this many days.
    larger_gb
        Only entries of more than this many GB (10^9 bytes).
    clear
        Remove the listed entries, except those in use. Downloads are removed only with --kind.
    json
        Print JSON instead of text.
    """
    import json as json_

    from ganlab.utils.cache_folder import cache_entries, remove_entry, since, size_text
    from ganlab.utils.paths import cache_bound, places

    for option, value in (("--unused-days", unused_days), ("--larger-gb", larger_gb)):
        if value is not None and not 0 <= value < math.inf:
            raise UserError(f"{option} {value:g}: expected 0 or more")
    folder, bound = places().cache, cache_bound()
    entries = cache_entries(folder)
    total = sum(entry.size for entry in entries)
    chosen = _of_kinds(entries, kind)
    if unused_days is not None:
        chosen = [entry for entry in chosen if entry.used <= time.time() - unused_days * 86400]
    if larger_gb is not None:
        chosen = [entry for entry in chosen if entry.size > larger_gb * 1e9]
    left: list[CacheEntry] = []
    if clear:
        left = [entry for entry in chosen if not (entry.recomputable or kind)]
        chosen = [entry for entry in chosen if entry.recomputable or kind]
        busy = [entry for entry in chosen if not remove_entry(entry)]
        chosen = [entry for entry in chosen if entry not in busy]
    if json:
        rows = [
            {"kind": entry.kind, "name": entry.name, "bytes": entry.size, "used": round(entry.used)} for entry in chosen
        ]
        about = {"folder": str(folder), "bound_bytes": bound, "removed" if clear else "entries": rows}
        print(json_.dumps(about, indent=2))
    else:
        width = max((len(entry.kind) for entry in chosen), default=0)
        for entry in chosen:
            print(f"{entry.kind:{width}}  {size_text(entry.size):>10}  {since(entry.used):>14}  {entry.name}")
        size = size_text(sum(entry.size for entry in chosen))
        what = "1 entry" if len(chosen) == 1 else f"{len(chosen):,} entries"
        limit = "no bound (GANLAB_CACHE_GB)" if bound is None else f"GANLAB_CACHE_GB = {bound / 1e9:g}"
        did = "removed" if clear else "listed"
        now = total - sum(entry.size for entry in chosen) if clear else total
        print(f"{did} {what}, {size}; {folder} takes {size_text(now)}, {limit}")
    if clear and busy:
        print(f"not removed: {len(busy):,} in use or another user's, such as {busy[0].name}", file=sys.stderr)
    if left:
        kinds = " ".join(f"--kind {name}" for name in sorted({entry.kind for entry in left}))
        size = size_text(sum(entry.size for entry in left))
        print(f"not removed: {size} that cannot be recomputed; add {kinds}", file=sys.stderr)
    return 0


def _of_kinds(entries: Sequence[CacheEntry], kinds: Sequence[str] | None) -> list[CacheEntry]:
    """The cache entries of these kinds, or all; refuses a kind that the cache folder does not have."""
    from ganlab.utils.cache_folder import cache_kinds
    from ganlab.utils.paths import places

    known = cache_kinds(places().cache)
    if unknown := [kind for kind in kinds or () if kind not in known]:
        has = ", ".join(known) or "nothing"
        raise UserError(
            *(f"--kind {name}: the cache has no such kind; it has {has}{did_you_mean(name, known)}" for name in unknown)
        )
    return [entry for entry in entries if kinds is None or entry.kind in kinds]
