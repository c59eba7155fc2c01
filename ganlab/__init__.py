"""ganlab: a small core that trains GANs, and plugins for all else.

The public names are importable from here. They are resolved on first use, so that `import ganlab` (and with it
`ganlab --help` and a plugin's import of `hookimpl`) does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ganlab.data import ImageDataset as ImageDataset
    from ganlab.data import to_float as to_float
    from ganlab.data import to_uint8 as to_uint8
    from ganlab.datasets import check_split as check_split
    from ganlab.datasets import downloading as downloading
    from ganlab.datasets import image_size as image_size
    from ganlab.datasets import stream_seed as stream_seed
    from ganlab.errors import ComponentError as ComponentError
    from ganlab.errors import GanlabError as GanlabError
    from ganlab.errors import UserError as UserError
    from ganlab.errors import one_line as one_line
    from ganlab.files import cached_tensors as cached_tensors
    from ganlab.files import file_sha256 as file_sha256
    from ganlab.files import flush_folder as flush_folder
    from ganlab.files import tensors_sha256 as tensors_sha256
    from ganlab.files import write_whole as write_whole
    from ganlab.hookspecs import Register as Register
    from ganlab.hookspecs import hookimpl as hookimpl
    from ganlab.layers import ClassHead as ClassHead
    from ganlab.layers import ConditionalBatchNorm2d as ConditionalBatchNorm2d
    from ganlab.layers import ConditionalNormName as ConditionalNormName
    from ganlab.layers import HeadName as HeadName
    from ganlab.layers import Judged as Judged
    from ganlab.layers import Layers as Layers
    from ganlab.layers import MinibatchStdDev as MinibatchStdDev
    from ganlab.layers import NormName as NormName
    from ganlab.layers import SelfAttention2d as SelfAttention2d
    from ganlab.layers import check_attention as check_attention
    from ganlab.layers import classes_of as classes_of
    from ganlab.layers import norm_layer as norm_layer
    from ganlab.layers import spectrally_normed as spectrally_normed
    from ganlab.mapped import MappedImages as MappedImages
    from ganlab.measuring import MOST_SAMPLES as MOST_SAMPLES
    from ganlab.measuring import about_features as about_features
    from ganlab.measuring import about_generated as about_generated
    from ganlab.measuring import about_reference as about_reference
    from ganlab.measuring import built_features as built_features
    from ganlab.measuring import cached_reference as cached_reference
    from ganlab.measuring import class_count as class_count
    from ganlab.measuring import class_labels_of as class_labels_of
    from ganlab.measuring import classifying as classifying
    from ganlab.measuring import features_of as features_of
    from ganlab.measuring import generated_features as generated_features
    from ganlab.measuring import generated_rows as generated_rows
    from ganlab.measuring import random_state as random_state
    from ganlab.measuring import random_subset as random_subset
    from ganlab.measuring import reference_features as reference_features
    from ganlab.measuring import reference_rows as reference_rows
    from ganlab.memory import FittingBatches as FittingBatches
    from ganlab.options import Interval as Interval
    from ganlab.options import component as component
    from ganlab.options import components as components
    from ganlab.pretrained import full_precision as full_precision
    from ganlab.pretrained import read_weights as read_weights
    from ganlab.protocols import Augmentation as Augmentation
    from ganlab.protocols import Dataset as Dataset
    from ganlab.protocols import DatasetConfig as DatasetConfig
    from ganlab.protocols import Discriminator as Discriminator
    from ganlab.protocols import Evaluation as Evaluation
    from ganlab.protocols import Features as Features
    from ganlab.protocols import FeaturesConfig as FeaturesConfig
    from ganlab.protocols import Generator as Generator
    from ganlab.protocols import ImageSpec as ImageSpec
    from ganlab.protocols import Launcher as Launcher
    from ganlab.protocols import Loss as Loss
    from ganlab.protocols import LossWrapper as LossWrapper
    from ganlab.protocols import Metric as Metric
    from ganlab.protocols import NetworkConfig as NetworkConfig
    from ganlab.protocols import OptimizerConfig as OptimizerConfig
    from ganlab.protocols import Penalty as Penalty
    from ganlab.protocols import Places as Places
    from ganlab.protocols import Schedule as Schedule
    from ganlab.protocols import Scores as Scores
    from ganlab.protocols import Step as Step
    from ganlab.protocols import TargetedLoss as TargetedLoss
    from ganlab.protocols import Task as Task
    from ganlab.protocols import Tracker as Tracker
    from ganlab.protocols import TrackerConfig as TrackerConfig
    from ganlab.runfolder import RunFolder as RunFolder
    from ganlab.runs import load_run as load_run
    from ganlab.testing import Check as Check
    from ganlab.testing import check as check
    from ganlab.testing import conformance as conformance
    from ganlab.tracking import is_score as is_score
    from ganlab.tracking import numbers_of as numbers_of

_HOMES = {
    "data": ["ImageDataset", "to_float", "to_uint8"],
    "datasets": ["check_split", "downloading", "image_size", "stream_seed"],
    "errors": ["ComponentError", "GanlabError", "UserError", "one_line"],
    "files": ["cached_tensors", "file_sha256", "flush_folder", "tensors_sha256", "write_whole"],
    "hookspecs": ["Register", "hookimpl"],
    "layers": [
        "ClassHead",
        "ConditionalBatchNorm2d",
        "ConditionalNormName",
        "HeadName",
        "Judged",
        "Layers",
        "MinibatchStdDev",
        "NormName",
        "SelfAttention2d",
        "check_attention",
        "classes_of",
        "norm_layer",
        "spectrally_normed",
    ],
    "mapped": ["MappedImages"],
    "measuring": [
        "MOST_SAMPLES",
        "about_features",
        "about_generated",
        "about_reference",
        "built_features",
        "cached_reference",
        "class_count",
        "class_labels_of",
        "classifying",
        "features_of",
        "generated_features",
        "generated_rows",
        "random_state",
        "random_subset",
        "reference_features",
        "reference_rows",
    ],
    "memory": ["FittingBatches"],
    "options": ["Interval", "component", "components"],
    "pretrained": ["full_precision", "read_weights"],
    "protocols": [
        "Augmentation",
        "Dataset",
        "DatasetConfig",
        "Discriminator",
        "Evaluation",
        "Features",
        "FeaturesConfig",
        "Generator",
        "ImageSpec",
        "Launcher",
        "Loss",
        "LossWrapper",
        "Metric",
        "NetworkConfig",
        "OptimizerConfig",
        "Penalty",
        "Places",
        "Schedule",
        "Scores",
        "Step",
        "TargetedLoss",
        "Task",
        "Tracker",
        "TrackerConfig",
    ],
    "runfolder": ["RunFolder"],
    "runs": ["load_run"],
    "testing": ["Check", "check", "conformance"],
    "tracking": ["is_score", "numbers_of"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME), "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ganlab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ganlab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
