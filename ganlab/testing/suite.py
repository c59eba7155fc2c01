"""The conformance suite: `check` runs all checks of a component's kind.

Decisions:
- A class is checked with its defaults. An option without a default has to be given; until then only what the class
  declares is checked, and the result says so.
- An option that takes another component, such as a metric's features, gets the suite's own, unless it is given.
- The suite restores all random states: a test that uses it changes no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ganlab.plugin.kinds import KINDS, NETWORK_KINDS
from ganlab.testing.augmentation import check_augmentation
from ganlab.testing.check_result import Check
from ganlab.testing.dataset import check_dataset
from ganlab.testing.declaration import check_declaration
from ganlab.testing.device import check_on_device
from ganlab.testing.features import check_features
from ganlab.testing.game import check_game
from ganlab.testing.inspection import Inspection
from ganlab.testing.launcher import check_launcher
from ganlab.testing.loss import check_loss
from ganlab.testing.loss_wrapper import check_loss_wrapper
from ganlab.testing.metric import check_metric
from ganlab.testing.network import check_network
from ganlab.testing.optimizer import check_optimizer
from ganlab.testing.penalty import check_penalty
from ganlab.testing.schedule import check_schedule
from ganlab.testing.tiny_components import register_given, tiny_registry
from ganlab.testing.tiny_training import TinyTraining
from ganlab.testing.tracker import check_tracker
from ganlab.utils.device import pick_device
from ganlab.utils.errors import UserError, did_you_mean
from ganlab.utils.from_python import from_python
from ganlab.utils.rng import preserve_random_state

CHECKS: dict[str, Callable[[Inspection, TinyTraining], None]] = {
    **dict.fromkeys(NETWORK_KINDS, check_network),
    "game": check_game,
    "loss": check_loss,
    "loss_wrapper": check_loss_wrapper,
    "penalty": check_penalty,
    "augmentation": check_augmentation,
    "optimizer": check_optimizer,
    "schedule": check_schedule,
    "dataset": check_dataset,
    "features": check_features,
    "metric": check_metric,
    "tracker": check_tracker,
    "launcher": check_launcher,
}
"""The conformance checks of each kind."""


@from_python
def check(
    component: Any, kind: str, networks: Mapping[str, Sequence[Any]] | None = None, device: str = "cpu"
) -> list[Check]:
    """Runs the conformance suite on a component: a class, with its defaults, or an instance, with its options.

    `networks` are configurations by kind, {"generator": [MyGenerator()]}, that a penalty is checked with where the
    suite's own tiny networks lack what it needs. On a `device` other than the CPU it is tried too, after all else.
    Returns every check with its result. Raises UserError for an unknown kind.
    """
    if kind not in KINDS:
        raise UserError(unknown_kind(kind))
    cls = component if isinstance(component, type) else type(component)
    inspection = Inspection(kind, cls, None if component is cls else component)
    with preserve_random_state():
        registry = tiny_registry()
        if inspection.instance is not None:
            register_given(registry, inspection.instance)
        needed = check_declaration(inspection, registry)
        if all(found.result == "passed" for found in needed):
            tiny, where = TinyTraining(inspection, registry, networks or {}), pick_device(device)

            def all_of_its_kind() -> None:
                CHECKS[kind](inspection, tiny)
                check_on_device(inspection, tiny, where)

            inspection.run_all(all_of_its_kind)
    return inspection.checks


def unknown_kind(kind: str) -> str:
    """The error for an unknown kind."""
    return f"unknown kind {kind!r}{did_you_mean(kind, KINDS) or '; there are: ' + ', '.join(KINDS)}"
