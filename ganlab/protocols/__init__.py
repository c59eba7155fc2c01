"""Protocols of the component kinds: the contracts between the core and every plugin, one file for each kind.

May import: `utils`.

Decisions:
- A component is an `attrs.frozen` class whose fields are its options, and so its keys in the experiment file.
  A loss, loss wrapper, penalty, augmentation, schedule, metric or launcher *is* that class. A network, optimiser, data
  set, feature extractor or tracker has state, so its class is a configuration with `build(...)`.
- Code that runs in the training step (loss, loss wrapper, penalty, augmentation, networks) maps tensors to tensors: no
  `.item()`, no printing, no branch on a tensor's value or on the step. Code outside the step has no such limits.
- The core passes arguments by position, so that an author may name them freely. It never passes additional ones: new
  information becomes a field, with a default, of `Step`, `Evaluation`, `ImageSpec`, `Places` or `Task`, so that no
  existing plugin breaks.
- Optional features are optional attributes or methods, such as `generator_uses_real` of a loss. Their absence means the
  safe default.
- In the step all data are float32, outside it of the data set's own type. Images are (N, C, H, W); those of uint8 and
  uint16 are in [-1, 1] in the step.
"""

from __future__ import annotations

from ganlab.protocols.augmentation import Augmentation as Augmentation
from ganlab.protocols.batch import Batch as Batch
from ganlab.protocols.condition import Condition as Condition
from ganlab.protocols.condition import condition_count as condition_count
from ganlab.protocols.condition import labels_in as labels_in
from ganlab.protocols.condition import map_condition as map_condition
from ganlab.protocols.condition import named_conditions as named_conditions
from ganlab.protocols.dataset import Dataset as Dataset
from ganlab.protocols.dataset import DatasetConfig as DatasetConfig
from ganlab.protocols.dataset import ReportingDatasetConfig as ReportingDatasetConfig
from ganlab.protocols.dataset import build_dataset as build_dataset
from ganlab.protocols.features import Features as Features
from ganlab.protocols.features import FeaturesConfig as FeaturesConfig
from ganlab.protocols.game import DataSpec as DataSpec
from ganlab.protocols.game import GameConfig as GameConfig
from ganlab.protocols.game import Move as Move
from ganlab.protocols.game import Network as Network
from ganlab.protocols.game import Output as Output
from ganlab.protocols.game import Rules as Rules
from ganlab.protocols.game import Sampler as Sampler
from ganlab.protocols.game import Terms as Terms
from ganlab.protocols.held_components import components_within as components_within
from ganlab.protocols.image_spec import ConditionSpec as ConditionSpec
from ganlab.protocols.image_spec import ImageSpec as ImageSpec
from ganlab.protocols.launcher import Launcher as Launcher
from ganlab.protocols.launcher import Task as Task
from ganlab.protocols.logits import all_logits as all_logits
from ganlab.protocols.logits import logits_per_image as logits_per_image
from ganlab.protocols.loss import Loss as Loss
from ganlab.protocols.loss import LossWrapper as LossWrapper
from ganlab.protocols.loss import TargetedLoss as TargetedLoss
from ganlab.protocols.loss import generator_uses_real as generator_uses_real
from ganlab.protocols.metric import Direction as Direction
from ganlab.protocols.metric import Evaluation as Evaluation
from ganlab.protocols.metric import Metric as Metric
from ganlab.protocols.metric import Scores as Scores
from ganlab.protocols.metric import Takes as Takes
from ganlab.protocols.metric import taken_by as taken_by
from ganlab.protocols.network import Discriminator as Discriminator
from ganlab.protocols.network import Generator as Generator
from ganlab.protocols.network import NetworkConfig as NetworkConfig
from ganlab.protocols.network import batch_independent as batch_independent
from ganlab.protocols.network import latent_dim_of as latent_dim_of
from ganlab.protocols.optimizer import NamedOptimizerConfig as NamedOptimizerConfig
from ganlab.protocols.optimizer import OptimizerConfig as OptimizerConfig
from ganlab.protocols.optimizer import build_optimizer as build_optimizer
from ganlab.protocols.optimizer import parameters_of as parameters_of
from ganlab.protocols.penalty import Penalty as Penalty
from ganlab.protocols.penalty import Step as Step
from ganlab.protocols.run_view import RunView as RunView
from ganlab.protocols.schedule import Schedule as Schedule
from ganlab.protocols.tracker import Tracker as Tracker
from ganlab.protocols.tracker import TrackerConfig as TrackerConfig
from ganlab.protocols.turn import Turn as Turn
from ganlab.utils.paths import Places as Places
