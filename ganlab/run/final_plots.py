"""ganlab.run.final_plots."""

from __future__ import annotations

from ganlab.data.pixels import to_float
from ganlab.evaluation.evaluator import subset_batches
from ganlab.evaluation.sampling import sample
from ganlab.nn.modes import eval_mode
from ganlab.nn.discriminator_output import logits
from ganlab.run.records import read_records
from ganlab.run.run_folder import RunFolder
from ganlab.training.loop import Training
from ganlab.utils.rng import preserve_random_state
from ganlab.viz import plots

SCORED = 1024
"""Images of each kind in plots/scores.png."""


def draw_plots(training: Training, folder: RunFolder, step: int, sound: bool) -> None:
    """The pictures of a run: from its records, and where it is sound from what the discriminator says now."""
    log = read_records(folder.path / "log.jsonl")
    plots.plot_losses(log, folder.plots / "losses.png")
    if moved := list(training.schedules.values(0)):
        plots.plot_scheduled_options(log, moved, folder.plots / "schedules.png")
    plots.plot_metrics(read_records(folder.path / "metrics.jsonl"), folder.plots / "metrics.png")
    if not sound:  # what broke the run, such as a disk, might break this too
        return
    game = training.game
    network = game.discriminator.network
    real, condition = training.loader.images, training.loader.condition  # in memory already where they are resident
    probabilities: dict[str, list[float]] = {"real": [], "fake": []}
    count = min(SCORED, len(real))
    with preserve_random_state():
        sources = {
            "real": subset_batches(real[:count], count, 0, condition=None if condition is None else condition[:count]),
            "fake": sample(game.generator.network, count, 0, game.device, training.conditions, "scores"),
        }
        for name, batches in sources.items():
            for images, of in batches:
                given = None if of is None else of.to(game.device)
                with eval_mode(network):
                    judged = logits(network(to_float(images.to(game.device)), given))
                probabilities[name] += judged.sigmoid().tolist()
    plots.plot_discriminator_outputs(probabilities["real"], probabilities["fake"], folder.plots / "scores.png", step)
