"""The parts of the GPU script, in the order in which they run, with the time that each may take."""

from __future__ import annotations

import dataclasses

TOTAL = 600.0
"""Seconds for all parts together."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """A part of the GPU script: a module with `run(part)`, and how many seconds it may take on a GPU.

    rehearsed_on: the device that stands for a GPU where there is none.
    """

    name: str
    module: str
    about: str
    seconds: float
    rehearsed_on: str = "cpu"


PARTS = (
    Planned("suite", "gpu.suite", "The tests of the suite that need CUDA", 90),
    Planned(
        "capture",
        "gpu.captured",
        "Captured steps against eager ones, to the bit: every bundled component, experiment and game",
        120,
        "pretend",
    ),
    Planned("deterministic", "gpu.repeated", "A run twice with train.deterministic, to the bit", 30, "pretend"),
    Planned("resume", "gpu.resumed", "A run stopped and resumed against one that never stopped", 40, "pretend"),
    Planned("kernels", "gpu.kernels", "Which kernels give other bits when they run again", 25),
    Planned("speed", "gpu.speed", "Steps per second, and their share of what the machine can do", 120),
    Planned("start", "gpu.start", "From the command to the first steps", 40),
    Planned("memory", "gpu.memory", "Memory: what is resident, the peak, the growth over evaluations", 45, "pretend"),
    Planned("processes", "gpu.processes", "Two processes, each on a GPU of its own", 40, "pretend"),
    Planned("training", "gpu.training", "cifar_dcgan for three minutes, with a grid and FID", 220),
)
