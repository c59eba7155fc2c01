"""The samples callback: a grid of generated images from the same latents each time, written to samples/.

Where a game has further samplers, their grids are in the same picture, below that of the main one. A game without a
sampler has grids of those of its outputs that are images, and otherwise none.
"""

from __future__ import annotations

from attrs import define

from ganlab.evaluation.game_outputs import game_outputs
from ganlab.evaluation.game_samplers import game_samplers, save_grids
from ganlab.plugin.failures import CatchPluginErrors
from ganlab.run.callbacks.base import Callback, is_due
from ganlab.run.opened_run import OpenedRun
from ganlab.utils.errors import error_text
from ganlab.utils.rng import preserve_random_state


@define
class SamplesCallback(Callback):
    """The samples callback: draws a grid before the first step, every `train.sample_every`, and after the last step."""

    run: OpenedRun

    def after_step(self, step: int) -> None:
        """Samples callback: draws the sample grid of this step where it is due."""
        training = self.run.training
        at_end = step == training.total_steps
        if step == 0 or at_end or is_due(training, self.run.experiment.train.sample_every, step):
            with preserve_random_state():  # a network may draw in its forward pass, also in eval mode
                self._draw_grid(step)

    def _draw_grid(self, step: int) -> None:
        """Samples callback: writes a step's grid unless its file exists; with a row for each class, or with pairs."""
        run, training = self.run, self.run.training
        path = run.folder.sample_file(step)
        if not run.folder.writes or path.exists():
            return
        count, seed, device = run.experiment.train.sample_count, run.experiment.seed, training.game.device
        networks = {**training.game.networks, **(training.ema.networks if training.ema else {})}
        rules, data = training.game.rules, (training.data, training.dataset, training.streams)
        samplers = game_samplers(rules, networks, *data, training.conditional).values()
        grids = [sampler.grid(count, seed, device) for sampler in samplers]
        limits = [sampler.limits for sampler in samplers]
        if rules.sampler is None:
            outputs = game_outputs(run.plugins.registry, run.experiment.game, rules, training.images, networks)
            grids = outputs.grids(training.dataset, count, device)
            limits = [None] * len(grids)
        if not grids:
            return
        with CatchPluginErrors() as guard:  # no drawing ends a run; a network that cannot be sampled does
            save_grids(grids, limits, path)
        if guard.error is not None:
            run.view.line(f"{path}: {error_text(guard.error)}; going on without it")
            return
        run.events.sampled(step, path)
