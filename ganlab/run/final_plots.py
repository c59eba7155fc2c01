"""The plots of a run in its folder's plots/, drawn when the run has ended."""

from __future__ import annotations

import torch
from torch import nn

from ganlab.data.pixels import as_input, rows_of
from ganlab.evaluation.evaluator import subset_batches
from ganlab.evaluation.network_sampler import NetworkSampler
from ganlab.evaluation.sampling import sample
from ganlab.nn.modes import eval_mode
from ganlab.protocols import map_condition
from ganlab.run.records import read_records
from ganlab.run.run_folder import RunFolder
from ganlab.training.loop import Training
from ganlab.utils.rng import preserve_random_state
from ganlab.viz import plots

SCORED = 1024
"""How many real and generated images the histogram of D(real) and D(fake) in plots/scores.png is of."""


def draw_plots(training: Training, folder: RunFolder, step: int, sound: bool) -> None:
    """Draws the final plots of a run: losses, schedules and metrics from its records, and D(real) and D(fake).

    D(real) and D(fake) are computed at this `step`, in evaluation mode: where the discriminator has batch norm, its
    running statistics are of real and generated images together, and the log's `d_real` and `d_fake`, of training, may
    lie elsewhere. They are computed only where the run is `sound`: what broke it, such as a disk, might break this too.
    The plot of metrics is the last, and every run has it (`RunFolder.has_plots`).
    """
    log = read_records(folder.path / "log.jsonl")
    plots.plot_losses(log, folder.plots / "losses.png")
    if moved := list(training.schedules.values(0)):
        plots.plot_scheduled_options(log, moved, folder.plots / "schedules.png")
    if sound and (judged := _judged(training)):
        plots.plot_real_and_fake(judged["real"], judged["fake"], folder.plots / "scores.png", step)
    plots.plot_metrics(read_records(folder.path / "metrics.jsonl"), folder.plots / "metrics.png")


def _judged(training: Training) -> dict[str, list[float]]:
    """D(x) of `SCORED` real images and of as many samples; nothing for a game without a judge or a sampler.

    The real ones are from all over the data set, which may be in the order of its classes.
    """
    game = training.game
    judge, sampler = game.rules.judge, game.rules.sampler
    if judge is None or sampler is None:
        return {}
    real, condition = training.loader.images, training.loader.condition  # in memory already where they are resident
    count = min(SCORED, len(real))
    some = torch.arange(count) * len(real) // count
    chosen = map_condition(lambda of: rows_of(of, some.to(of.device)), condition)
    plain = NetworkSampler(sampler, game.networks, training.images.dtype)
    every_network = nn.ModuleDict(game.networks)
    probabilities: dict[str, list[float]] = {"real": [], "fake": []}
    with preserve_random_state():
        images_of = {
            "real": subset_batches(rows_of(real, some.to(real.device)), count, 0, condition=chosen),
            "fake": sample(plain, count, 0, game.device, training.conditions, "scores"),
        }
        for name, batches in images_of.items():
            for images, of in batches:
                given = map_condition(lambda part: part.to(game.device), of)
                with eval_mode(every_network):
                    output = judge(game.networks, as_input(images.to(game.device)), given).float()
                probabilities[name] += output.sigmoid().tolist()
    return probabilities
