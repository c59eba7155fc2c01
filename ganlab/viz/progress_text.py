"""Texts of a run's progress, for terminal and notebook: values of a tick, alarms, floors, durations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_duration(seconds: float) -> str:
    """3725 as "1:02:05"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def tick_values(record: Mapping[str, Any]) -> dict[str, str]:
    """Progress display: formats a tick's record, as labels and values."""
    names = {**_loss_labels(record), "d_real": "D(real)", "d_fake": "D(fake)"}
    shown = {label: _short(record[name]) for name, label in names.items() if name in record}
    for name, value in record.items():
        if name.startswith("penalty_"):
            shown[name.removeprefix("penalty_")] = f"{value:.3g}"
    shown["img/s"] = f"{record['images_per_second']:,.0f}"
    return shown


def _short(value: float) -> str:
    """Progress display: a loss with three decimals, a huge one with four digits."""
    return f"{value:.3f}" if abs(value) < 1e6 else f"{value:.4g}"


def _loss_labels(record: Mapping[str, Any]) -> dict[str, str]:
    """Progress display: the losses of a record's moves, without their terms, each with a label.

    A label has the move's initial, as in "loss D", or its name where two moves have the same initial.
    """
    losses = [name for name in record if name.startswith("loss_")]
    moves = [name.removeprefix("loss_") for name in losses if not any(name.startswith(f"{other}_") for other in losses)]
    initials = [move[:1].upper() for move in moves]
    labels = initials if len(set(initials)) == len(moves) else moves
    return {f"loss_{move}": f"loss {label}" for move, label in zip(moves, labels, strict=True)}


def alarm_lines(record: Mapping[str, Any]) -> list[str]:
    """The active alarms, as lines."""
    return [f"ALARM: {name}" for name in record.get("alarms", ())]


def floor_note(record: Mapping[str, Any]) -> str:
    """The score's floor, shown next to it."""
    return f" (floor {record['floor']['value']:.4g})" if "floor" in record else ""


def amount_done(what: str, done: int, total: int) -> str:
    """Progress display: how much is done, where it is known."""
    return f"{what}: {done:,}/{total:,}" if total else what
