"""What each kind of component must be: the contracts between the core and every plugin."""

from __future__ import annotations

from ganlab.protocols.augmentation import Augmentation as Augmentation
from ganlab.protocols.dataset import Dataset as Dataset
from ganlab.protocols.dataset import DatasetConfig as DatasetConfig
from ganlab.protocols.features import Features as Features
from ganlab.protocols.features import FeaturesConfig as FeaturesConfig
from ganlab.protocols.launcher import Launcher as Launcher
from ganlab.protocols.launcher import Task as Task
from ganlab.protocols.loss import Loss as Loss
from ganlab.protocols.loss import LossWrapper as LossWrapper
from ganlab.protocols.loss import TargetedLoss as TargetedLoss
from ganlab.protocols.metric import Direction as Direction
from ganlab.protocols.metric import Evaluation as Evaluation
from ganlab.protocols.metric import Metric as Metric
from ganlab.protocols.metric import Scores as Scores
from ganlab.protocols.network import Discriminator as Discriminator
from ganlab.protocols.network import Generator as Generator
from ganlab.protocols.network import ImageSpec as ImageSpec
from ganlab.protocols.network import NetworkConfig as NetworkConfig
from ganlab.protocols.optimizer import OptimizerConfig as OptimizerConfig
from ganlab.protocols.penalty import Penalty as Penalty
from ganlab.protocols.penalty import Step as Step
from ganlab.protocols.schedule import Schedule as Schedule
from ganlab.protocols.tracker import Tracker as Tracker
from ganlab.protocols.tracker import TrackerConfig as TrackerConfig
from ganlab.utils.paths import Places as Places
