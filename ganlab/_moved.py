"""Old import paths: names of the flat modules that `ganlab` once had are found, with a warning that says the new line.

    >>> from ganlab.phases import logits
    DeprecationWarning: ganlab.phases.logits has moved; write `from ganlab.nn.discriminator_output import logits`

Decisions:
- The finder is the last of `sys.meta_path`, so Python asks it only for a module of `ganlab` that does not exist.
- Importing an old module imports nothing else. A name is looked up on first use, and that gives the warning, because
  the line to write depends on the name.
- Where an old module's name is now that of a package (`ganlab.config`), the package's `__getattr__` does the same.
- A public name that no longer exists raises ImportError with a line that says what to use instead. AttributeError
  would not do: `from … import …` replaces its message.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES: dict[str, str] = {
    "alarms": "run.alarms run.sample_spread run.loss_optimum",
    "audience": "run.events",
    "bench": "bench.benchmark",
    "beside": "",
    "build": "training.step_components training.build utils.device",
    "by_class": "evaluation.per_class",
    "capture": "training.cuda_graphs",
    "checkpoint": "training.checkpoint",
    "cli": "cli.main",
    "commands": "",
    "commands.arguments": "cli.arguments",
    "commands.authors": "cli.author_commands",
    "commands.results": "cli.result_commands",
    "commands.training": "cli.training_commands",
    "compare": "report.compare report.collect",
    "completion": "cli.completion",
    "conditions": "data.condition_sampler",
    "config": "config.load",
    "data": "data.pixels data.dataset data.batch",
    "datasets": "data.dataset_options data.download",
    "determinism": "utils.determinism",
    "diagnosis": "run.divergence",
    "ending": "run.failure",
    "errors": "utils.errors",
    "evaluation": "evaluation.evaluator evaluation.sampling",
    "files": "utils.hashing utils.files utils.paths utils.cache",
    "hooks": "plugin.hook_checks",
    "hookspecs": "plugin.hookspecs",
    "images": "viz.image_grid",
    "interrupts": "utils.signals",
    "layers": "nn.layers nn.class_head",
    "levers": "nn.dropout nn.memory_format training.cuda_graphs",
    "listing": "cli.list_plugins",
    "loop": "training.loop",
    "mapped": "data.memmap",
    "measuring": "evaluation.features evaluation.score_protocol data.dataset",
    "memory": "utils.memory",
    "new": "cli.scaffold",
    "opening": "run.open_folder run.resume",
    "options": "plugin.fields utils.interval",
    "pages": "report.html",
    "phases": "training.train_step training.meters",
    "plots": "viz.plots",
    "plugins": "plugin.loader",
    "pretrained": "nn.pretrained",
    "ranks": "utils.distributed",
    "registry": "plugin.kinds plugin.registry plugin.component_checks",
    "reporting": "report.table_output bench.report",
    "rivals": "bench.baselines",
    "rng": "utils.rng",
    "runfolder": "run.run_folder run.records run.environment",
    "runs": "run.load_run",
    "sampling": "run.sample_images",
    "schedules": "training.schedule_targets training.schedules",
    "schema": "config.schema",
    "scoring": "evaluation.score_images run.rescore",
    "session": "run.final_plots run.train",
    "state": "training.state",
    "statistics": "report.statistics",
    "streaming": "data.prefetch",
    "streams": "utils.stdio",
    "structure": "config.converter",
    "sweeps": "sweep.plan sweep.sweep_dir sweep.launch",
    "tables": "config.toml config.overrides",
    "testing.beside": "testing.tracker testing.launcher",
    "testing.checks": "testing.check_result testing.inspection testing.tensor_checks testing.tiny_training",
    "testing.command": "testing.check_command",
    "testing.data": "testing.metric testing.dataset testing.features",
    "testing.game": "testing.tiny_training testing.step_timing",
    "testing.moved": "testing.scheduled_options",
    "testing.networks": "testing.network testing.optimizer",
    "testing.schedules": "testing.schedule",
    "testing.subjects": "testing.plugin_file testing.suite",
    "testing.terms": "testing.loss testing.augmentation testing.network testing.loss_wrapper testing.penalty",
    "testing.tiny": "testing.tiny_components",
    "tracking": "run.records",
    "trial": "training.probes",
    "updating": "training.update",
    "view": "viz.progress",
    "watch": "training.graph_check",
    "wording": "config.describe",
}
"""Old modules and where their names are now, the likeliest module first; all names without `ganlab.`."""

RENAMED: dict[str, str] = {
    "alarms.asked_gap": "run.loss_optimum.optimal_gap",
    "audience.Audience": "run.events.EventDispatcher",
    "bench.Progress": "evaluation.evaluator.Progress",
    "build.Training": "training.loop.Training",
    "build.capturing": "training.build.captured_train_step",
    "by_class.means": "evaluation.per_class.mean_over_classes",
    "by_class.name_of": "evaluation.per_class.per_class_name",
    "by_class.scorer_of": "evaluation.per_class.class_evaluator",
    "capture.CapturedTurns": "training.cuda_graphs.CapturedTrainStep",
    "capture.Rehearsal": "training.cuda_graphs.EagerRecorder",
    "capture.rehearse": "training.cuda_graphs.dry_run_capture",
    "checkpoint.not_finite": "training.state_tree.find_non_finite",
    "compare.Entry": "report.collect.Entry",
    "conditions.Conditions": "data.condition_sampler.ConditionSampler",
    "conditions.MOST_ROWS": "data.condition_sampler.MAX_GRID_ROWS",
    "config.differences": "config.load.differing_options",
    "config.resolve": "config.load.experiment_from_table",
    "config.structured": "config.load.convert_experiment",
    "config.to_table": "config.load.experiment_to_table",
    "config.to_toml": "config.load.experiment_to_toml",
    "config.used_files": "config.load.used_plugin_files",
    "data.Feeder": "data.loader.BatchLoader",
    "data.allowed_bytes": "data.loader.max_resident_bytes",
    "data.as_input": "data.pixels.condition_as_input",
    "data.resident": "data.loader.copy_to_device",
    "diagnosis.NOT_AGAIN": "run.divergence.NOT_REPEATED",
    "diagnosis.cause": "run.divergence.find_cause",
    "diagnosis.owners": "run.divergence.component_names",
    "ending.explained": "run.failure.explain_failure",
    "errors.shown": "utils.errors.quote",
    "errors.shown_key": "utils.errors.quote_key",
    "evaluation.BATCH": "evaluation.sampling.BATCH",
    "evaluation.Scorer": "evaluation.evaluator.Evaluator",
    "evaluation.Scoring": "evaluation.evaluator.MetricRunner",
    "evaluation.chosen": "evaluation.evaluator.subset_batches",
    "evaluation.evaluating": "nn.modes.eval_mode",
    "evaluation.images_from": "evaluation.sampling.generate_images",
    "evaluation.sample": "evaluation.sampling.sample",
    "files.make_room": "utils.files.check_disk_space",
    "files.remove": "utils.files.remove_path",
    "files.writing": "utils.files.raise_cannot_write",
    "hooks.hooks_of": "plugin.hook_checks.find_hooks",
    "hooks.is_over": "plugin.hook_checks.release_reached",
    "hooks.place": "plugin.hook_checks.line_of_function",
    "hooks.specs": "plugin.hook_checks.hookspecs_by_name",
    "images.SMALLEST": "viz.image_grid.MIN_PIXELS",
    "images.grid": "viz.image_grid.image_grid",
    "images.png": "viz.image_grid.encode_png",
    "interrupts.terminable": "utils.signals.signals_as_keyboard_interrupt",
    "layers.Judged": "nn.discriminator_output.Judged",
    "levers.looks_at_condition": "training.probes.uses_condition",
    "levers.prepare": "nn.dropout.use_quick_dropout",
    "measuring.about_features": "evaluation.score_protocol.about_features",
    "measuring.about_reference": "evaluation.score_protocol.about_reference",
    "opening.TOLD": "run.resume.MOST_DIFFERENCES",
    "opening.chosen_folder": "run.open_folder.choose_folder",
    "opening.goes_further": "run.resume.asks_for_more_steps",
    "opening.identity": "run.resume.experiment_identity",
    "opening.restored": "run.resume.restore_latest",
    "opening.surroundings_of": "run.environment.run_environment",
    "options.MOST": "utils.interval.MAX_COUNT",
    "phases.Average": "training.ema.EMA",
    "phases.Game": "training.game.Game",
    "phases.Turns": "training.train_step.TrainStep",
    "phases.decay_of": "training.ema.ema_decay",
    "phases.frozen_parameters": "nn.modes.frozen_parameters",
    "phases.logits": "nn.discriminator_output.logits",
    "plots.curves_picture": "viz.plots.metric_curves_png",
    "plots.plot_options": "viz.plots.plot_scheduled_options",
    "plots.plot_scores": "viz.plots.plot_discriminator_outputs",
    "plots.points_picture": "viz.plots.scatter_png",
    "plugins.Failure": "plugin.failures.PluginFailure",
    "plugins.Guard": "plugin.failures.CatchPluginErrors",
    "plugins.blamed": "plugin.failures.attribute_to_plugin",
    "plugins.cause": "plugin.failures.describe_error",
    "plugins.sources": "plugin.loader.plugin_sources",
    "ranks.any_of": "utils.distributed.any_process",
    "ranks.as_the_first": "utils.distributed.broadcast_from_first",
    "ranks.averaged": "utils.distributed.all_reduce_mean",
    "ranks.gathered": "utils.distributed.all_gather_rows",
    "ranks.gathered_bytes": "utils.distributed.all_gather_bytes",
    "ranks.joined": "utils.distributed.process_group",
    "ranks.local_world": "utils.distributed.local_world_size",
    "ranks.share": "utils.distributed.local_share",
    "ranks.sum_gradients": "utils.distributed.all_reduce_gradients",
    "ranks.told": "utils.distributed.broadcast_json",
    "ranks.with_others": "utils.distributed.all_gather_with_grad",
    "ranks.world": "utils.distributed.world_size",
    "registry.Component": "plugin.component.Component",
    "registry.Origin": "plugin.component.Origin",
    "registry.called": "plugin.component_checks.name_or_repr",
    "rng.untouched": "utils.rng.preserve_random_state",
    "runfolder.read_records": "run.records.read_records",
    "runfolder.record_line": "run.records.record_line",
    "runfolder.to_json": "run.records.to_json",
    "schedules.HALF_LIFE": "training.schedule_targets.EMA_HALF_LIFE",
    "schedules.LOOKED_AT": "training.schedules.CHECKED_STEPS",
    "schedules.Moving": "training.schedules.ScheduledOption",
    "schedules.Target": "training.schedule_targets.ScheduleTarget",
    "schedules.movable": "training.schedule_targets.schedulable_options",
    "schedules.placed": "training.schedule_targets.resolve_targets",
    "schedules.scheduled": "training.schedules.build_schedules",
    "schedules.without_effect": "training.schedule_targets.ineffective_schedules",
    "scoring.DEFAULT": "evaluation.score_images.DEFAULT_METRIC",
    "scoring.FOLDER": "evaluation.score_images.IMAGE_FOLDER",
    "scoring.Wanted": "evaluation.score_images.ScoreConfig",
    "scoring.read_npz": "data.npz.read_npz",
    "streaming.Index": "data.prefetch.BatchIndex",
    "streaming.Stream": "data.prefetch.Prefetcher",
    "streams.lasting": "utils.stdio.fail_safe_stream",
    "structure.NAMED": "config.converter.MAX_NAMED_PROBLEMS",
    "structure.Problems": "config.converter.InvalidTable",
    "structure.Structurer": "config.converter.TableConverter",
    "tables.override": "config.overrides.apply_override",
    "testing.beside.LONG": "testing.launcher.SAVES_WHEN_STOPPED",
    "testing.beside.WHEN_STARTED": "testing.launcher.ENDS_WHEN_STARTED",
    "testing.checks.Lines": "testing.line_tracer.LineTracer",
    "testing.checks.compare_with_differences": "testing.finite_differences.check_gradient",
    "testing.checks.difference": "testing.state_comparison.first_difference",
    "testing.checks.draws": "testing.global_randomness.global_generators_used",
    "testing.checks.finite": "testing.tensor_checks.is_finite",
    "testing.checks.noise": "testing.fixed_inputs.fixed_noise",
    "testing.checks.raised": "testing.inspection.error_text",
    "testing.checks.same": "testing.state_comparison.states_equal",
    "testing.data.CHANNELS": "testing.fixed_inputs.CHANNELS",
    "testing.data.MANY": "testing.tiny_evaluator.MAX_SAMPLES",
    "testing.game.Shape": "testing.fixed_inputs.Shape",
    "testing.game.in_turns": "testing.step_timing.median_milliseconds",
    "testing.moved.Put": "testing.scheduled_options.SetTo",
    "testing.moved.look_at_options": "testing.scheduled_options.check_scheduled_options",
    "testing.networks.BATCHES": "testing.network.BATCH_SIZES",
    "testing.schedules.TOTALS": "testing.schedule.RUN_LENGTHS",
    "testing.subjects.check": "testing.suite.check",
    "testing.subjects.loaded_from": "testing.plugin_file.load_with_file",
    "testing.terms.BATCHES": "testing.loss.BATCH_SIZES",
    "testing.terms.OBSERVED": "testing.augmentation.OBSERVED_BATCHES",
    "testing.terms.PLAYERS": "training.step_components.PLAYERS",
    "trial.first_steps": "training.probes.first_penalty_steps",
    "updating.leaves_no_trace": "training.probes.can_undo_updates",
    "updating.step_unless": "training.update.step_unless_stopped",
    "view.View": "viz.progress.ProgressView",
    "view.duration": "viz.progress.format_duration",
    "view.make_view": "viz.progress.make_progress_view",
    "watch.Fault": "training.graph_check.CaptureFault",
    "watch.Place": "training.graph_check.CodeLine",
    "watch.Watch": "training.graph_check.OperationTrace",
    "watch.unfit": "training.graph_check.find_capture_fault",
    "wording.component_in_words": "config.describe.describe_component",
    "wording.holds_several": "config.describe.is_component_list",
    "wording.in_words": "config.describe.describe_type",
    "wording.option_in_words": "config.describe.describe_option_type",
    "wording.text_of": "config.describe.class_description",
}
"""Old names of functions, classes and constants that have another name now, or that several of the modules have."""

GONE: dict[str, str] = {}
"""Old names without a successor, and what to do instead."""


def old_names(module: str) -> Callable[[str], Any]:
    """Returns the `__getattr__` of an old module: finds each name where it is now, with a DeprecationWarning."""

    def __getattr__(name: str) -> Any:
        if name.startswith("_") or _is_submodule(module, name):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, new, value = _find(module, name)
        line = f"{module}.{name} has moved; write `from {home} import {new}`"
        warnings.warn(line, DeprecationWarning, stacklevel=2)
        vars(sys.modules[module])[name] = value
        return value

    return __getattr__


def _is_submodule(module: str, name: str) -> bool:
    """Whether a package has a module of this name: Python asks for an attribute first, then imports the module."""
    package = hasattr(sys.modules[module], "__path__")
    return package and importlib.util.find_spec(f"{module}.{name}") is not None


def _find(module: str, name: str) -> tuple[str, str, Any]:
    """The module where an old name is now, its name there, and its value; public names come from `ganlab` itself."""
    old = f"{module}.{name}".removeprefix("ganlab.")
    if old in GONE:
        raise ImportError(f"ganlab.{old} no longer exists; {GONE[old]}")
    homes, _, new = RENAMED.get(old, f"{MODULES[old.rpartition('.')[0]]}.{name}").rpartition(".")
    for home in (f"ganlab.{part}" for part in homes.split()):
        value = getattr(importlib.import_module(home), new, None)
        if value is not None:
            package = sys.modules["ganlab"]
            is_public = new in package.__all__ and getattr(package, new) is value
            return "ganlab" if is_public else home, new, value
    where = " and ".join(f"ganlab.{home}" for home in homes.split())
    raise AttributeError(f"module {module!r} has no attribute {name!r}; what it had is now in {where}")


class OldModuleFinder(MetaPathFinder, Loader):
    """Finds the old modules, and loads each as an empty one with a `__getattr__`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns the spec of an old module of `ganlab`; None for any other name."""
        package, _, old = fullname.partition(".")
        if package != "ganlab" or old not in MODULES:
            return None
        is_package = any(other.startswith(f"{old}.") for other in MODULES)
        return ModuleSpec(fullname, self, origin="moved", is_package=is_package)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves the creation of an old module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Fills an old module: its names are found on first use."""
        vars(module)["__getattr__"] = old_names(module.__name__)


def install() -> None:
    """Puts the finder of old modules at the end of `sys.meta_path`."""
    sys.meta_path.append(OldModuleFinder())
