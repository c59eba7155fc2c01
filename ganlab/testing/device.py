"""The conformance check of a component on a device other than the CPU: it trains, or scores, with all tensors there.

Decisions:
- It comes last, and only where a device was asked for: `ganlab check FILE --device cuda`, or `pretend` without a GPU.
- On the pretend device the second half of a tiny training must cross to the CPU nowhere in a step: no value is read
  back, and nothing is copied. What moves to the device in a first step is no fault.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import attrs
import torch

from ganlab.testing.check_result import Fault
from ganlab.testing.fixed_inputs import CHANNELS
from ganlab.testing.inspection import Inspection, temporary_folder
from ganlab.testing.metric import score_tiny_network
from ganlab.testing.pretend.events import Event, record_events
from ganlab.testing.pretend.tensor import DeviceMismatch
from ganlab.testing.tiny_components import TinyImages
from ganlab.testing.tiny_evaluator import tiny_evaluator
from ganlab.testing.tiny_training import TinyTraining
from ganlab.training.loop import take_step
from ganlab.utils.errors import ComponentError

NOT_ON_DEVICES = ("dataset", "tracker", "launcher")
"""Kinds whose components never see the device."""


def check_on_device(inspection: Inspection, tiny: TinyTraining, device: torch.device) -> None:
    """Runs the conformance check of a component on a device, unless it does not even work on the CPU."""
    if device.type == "cpu" or inspection.kind in NOT_ON_DEVICES:
        return
    works = [found for found in inspection.checks if found.what.startswith(("trains", "scores", "builds"))]
    if inspection.kind in ("metric", "features"):
        what, work = "gives a result", partial(_check_evaluation, inspection, device)
    else:
        what, work = "trains, and a step reads no value back and copies nothing", partial(_check_steps, tiny, device)
    inspection.run_check(f"device: on {device} it {what}", partial(_with_place, work), *works)


def _with_place(work: Callable[[], None]) -> None:
    """Does the work; what mixes devices is a fault at its line."""
    try:
        work()
    except DeviceMismatch as error:
        at, _, what = str(error).partition(": ")
        raise Fault(what, at) from error


def _check_steps(tiny: TinyTraining, device: torch.device) -> None:
    """Checks the steps of a tiny training on a device."""
    there = attrs.evolve(tiny, device=device)
    training = there.build()
    half = there.length // 2
    for step in range(half):
        take_step(training, step)
    with record_events() as events:
        for step in range(half, there.length):
            take_step(training, step)
    if found := [event for event in events if event.in_step]:
        raise _as_fault(found[0])


def _as_fault(event: Event) -> Fault:
    return Fault(f"{event.what} in each step ({event.operation})", event.place)


def _check_evaluation(inspection: Inspection, device: torch.device) -> None:
    """Checks that a metric scores on a device, or that features are extracted there."""
    refused: ComponentError | None = None
    for channels in CHANNELS:
        try:
            with temporary_folder() as cache:
                if inspection.kind == "metric":
                    score_tiny_network(inspection, channels, cache, device)
                else:
                    _extract(inspection, channels, device)
        except ComponentError as error:
            refused = error
        else:
            return
    if refused is not None:
        raise refused


def _extract(inspection: Inspection, channels: int, device: torch.device) -> None:
    """Extracts features of a few images on a device, and checks where they are."""
    evaluation = tiny_evaluator(channels, device=device).for_images(torch.zeros(0)).evaluation(lambda *_: None)
    features = inspection.fresh().build(evaluation)
    images = TinyImages((channels, 8, 8)).build(evaluation.places, "train").images[:4]
    found = features(images.to(device))
    if found.device.type != device.type:
        at = inspection.line_of("__call__", features)
        raise Fault(f"its features are on {found.device}, of images on {device}", at)
