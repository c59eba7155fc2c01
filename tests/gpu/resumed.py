"""Part of the GPU script: a run that was stopped and resumed against one that never stopped, to the bit."""

from __future__ import annotations

from typing import Any

from gpu import tables
from gpu.commands import differences, ganlab, in_words, last_state
from gpu.part import Part, text_of
from gpu.repeated import table_of
from step_cases import changed

CASES: dict[str, dict[str, Any]] = {
    "captured": {},
    "eager": {"capture": False},
    "bfloat16": {"precision": "bfloat16"},
    "streamed": {"resident_gb": 0.0},
}


def run(part: Part) -> None:
    steps = 8 if part.rehearsed else 60
    cases = CASES
    if part.rehearsed:
        cases = {"streamed": CASES["streamed"]}
        part.leave_out(f"{', '.join(CASES.keys() - cases.keys())}")
    for name, options in cases.items():
        table = changed(table_of(part), metric=[], train={"deterministic": True, **options})
        file = tables.write(table, part.folder, name)
        whole, parts = part.folder / f"{name} whole", part.folder / f"{name} in parts"
        common = ("run", file, "--device", part.device, "--set", f"train.steps={steps}")
        try:
            ganlab(*common, "--out", whole)
            ganlab(*common, "--out", parts, "--set", f"train.steps={steps // 2}")
            ganlab(*common, "--out", parts, "--resume")
        except RuntimeError as error:
            part.fault(f"{name}: {text_of(error)}")
            continue
        different = differences(last_state(whole), last_state(parts))
        part.row(run=name, steps=steps, stopped_after=steps // 2, resumed=in_words(different))
        if different:
            part.fault(f"{name}: {in_words(different)}")
