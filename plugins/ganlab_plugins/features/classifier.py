"""Classifier features: a small network trained on the data set's own class labels, for data unlike photographs.

Features learned on photographs do not separate handwritten digits well; those of a network that classifies the data
set do. FID in these features is Heusel et al.'s distance (2017, arXiv:1706.08500) in another feature space.

Decisions:
- It may be trained on another data set than the one that is scored: for images without labels, such as glyphs in one
  font, a classifier of fonts.
- The classifier is trained on the training split, whichever split a metric compares with, and always from the same
  seed. Its weights are cached under everything they depend on, and their hash is in every score's protocol: only
  scores with equal hashes are comparable.
- Training has a number of updates, because an epoch is 12 of them for one data set and 500 for another; for a small
  data set it ends earlier, after 30 epochs. Test accuracy and training time on two CPU cores: scikit-learn's digits
  96.6% in 8 s, MNIST 99.1% in 34 s, CIFAR-10 (from JPEG files) 62.8% in 43 s.
- It is trained on images with noise of random strength. Without noise, batch norm divides by the tiny variance of an
  empty background, and the score of noisy samples is that of their background: on MNIST a GAN's recognisable digits
  then scored ten times worse than a generator that makes only ones, and uniform grey better than blurred strokes.
- The features' scale is the network's own: real training against real test images score 1.0 on digits (297 test
  images), 0.016 on MNIST and 0.008 on CIFAR-10, so scores should be compared with that floor and not with Inception's.
- The features are the last layer's maps after ReLU, averaged over positions, as Inception's are.
- For larger images the first layer has a larger stride, so that the rest works at 16 pixels or less.
- If each channel is an image of its own, as in Stacked MNIST, a network of the joint classes would have to learn 1,000
  classes instead of 10. `per_channel` trains it on single channels; an image's class combines its channels' classes,
  and its log probability is the sum of the channels'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen, validators

from ganlab import (
    ComponentError,
    Dataset,
    DatasetConfig,
    Evaluation,
    FeaturesConfig,
    FittingBatches,
    Register,
    cached_tensors,
    class_count,
    class_labels_of,
    component,
    full_precision,
    hookimpl,
    tensors_sha256,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ARCHITECTURE = 1
"""To be incremented when the classifier or its training changes, so that older cached weights are not used."""

TRAIN_BATCH = 128
MAX_PASSES = 30
PEAK_LR = 4e-3
NOISE = 0.5
"""Largest standard deviation of the noise that is added to a training image, with pixels in [-1, 1]."""

BATCH = 512
"""Batch size when features are computed."""


@frozen
class ClassifierFeatures:
    """Classifier `Features`: uint8 images (N, C, H, W), of the shape it was trained on, to float32 (N, dim)."""

    body: nn.Module
    head: nn.Module
    shape: tuple[int, int, int]
    device: torch.device
    fingerprint: str
    dim: int
    name: str = "classifier"
    preprocessing: str = "uint8 to [-1, 1]"
    batches: FittingBatches = field(init=False, repr=False)

    @batches.default
    def _batches(self) -> FittingBatches:
        return FittingBatches(lambda part: self.body(prepared(part.to(self.device))), BATCH)

    def __call__(self, images: Tensor, /) -> Tensor:
        import torch

        if tuple(images.shape[1:]) != self.shape:
            got, wanted = ("x".join(map(str, shape)) for shape in (images.shape[1:], self.shape))
            raise ComponentError(f"the classifier was trained on images of {wanted}, got {got}")
        with torch.no_grad(), full_precision(self.device):
            return self.batches(images)

    def with_gradients(self, images: Tensor) -> Tensor:
        """The classifier's features (N, dim), with gradients, of float images (N, C, H, W) in [-1, 1]."""
        if tuple(images.shape[1:]) != self.shape:
            raise ComponentError(f"the classifier was trained on images of {self.shape}, got {tuple(images.shape[1:])}")
        features: Tensor = self.body(images.to(self.device))
        return features

    def logits(self, images: Tensor) -> Tensor:
        """The classifier's class logits (N, classes) of uint8 images (N, C, H, W)."""
        import torch

        with torch.no_grad(), full_precision(self.device):
            logits: Tensor = self.head(self(images))
            return logits


@frozen
class PerChannelFeatures:
    """Classifier `Features` of images whose channels are classified separately, by the same network.

    The features of images (N, C, H, W) are the concatenated features of their channels, float32 (N, C * dim). An
    image's class has its channels' classes as digits to the base k, the number of classes of a channel: classes a and b
    of two channels are k a + b.
    """

    single: ClassifierFeatures
    channels: int
    name: str = "classifier"
    preprocessing: str = "uint8 to [-1, 1], each channel by itself"

    @property
    def fingerprint(self) -> str:
        return self.single.fingerprint

    @property
    def dim(self) -> int:
        return self.channels * self.single.dim

    def __call__(self, images: Tensor, /) -> Tensor:
        each: Tensor = self.single(self._channels_of(images)).unflatten(0, (len(images), self.channels))
        return each.flatten(1)

    def with_gradients(self, images: Tensor) -> Tensor:
        """The classifier's features of each channel, with gradients, of float images (N, C, H, W) in [-1, 1]."""
        each = self.single.with_gradients(self._channels_of(images))
        return each.reshape(len(images), -1)

    def logits(self, images: Tensor) -> Tensor:
        """The log probabilities (N, k^C) of the channels' joint classes of uint8 images (N, C, H, W), as logits."""
        each = self.single.logits(self._channels_of(images)).log_softmax(1).unflatten(0, (len(images), self.channels))
        joint: Tensor = each[:, 0]
        for channel in range(1, self.channels):
            joint = (joint[:, :, None] + each[:, channel, None, :]).flatten(1)
        return joint

    def _channels_of(self, images: Tensor) -> Tensor:
        """The channels as separate inputs (N * C, 1, H, W) of the classifier."""
        if tuple(images.shape[1:]) != (wanted := (self.channels, *self.single.shape[1:])):
            got, expected = ("x".join(map(str, shape)) for shape in (images.shape[1:], wanted))
            raise ComponentError(f"the classifier was trained on channels of images of {expected}, got {got}")
        return images.flatten(0, 1)[:, None]


@frozen
class Classifier:
    """Features of a convolutional classifier of a data set's classes, trained when it is first needed.

    The data set must have class labels.

    updates: training updates, with batches of 128 images; fewer if 30 epochs are fewer.
    dim: number of features; with `per_channel`, of each channel.
    seed: of the initial weights and of the order of images.
    per_channel: each channel is an image with its own class, and the label has these as digits, as in `stacked_mnist`.
        The network is trained on single channels, each of which counts as an image.
    dataset: the data set that it is trained on, with images of the shape of those that are scored, which need no labels
        then; by default `[dataset]`.
    """

    updates: int = field(default=800, validator=[validators.ge(1), validators.le(1_000_000)])
    dim: int = field(default=64, validator=[validators.ge(2), validators.le(2**16)])
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])
    per_channel: bool = False
    dataset: DatasetConfig | None = component("dataset", default=None)

    def build(self, evaluation: Evaluation) -> ClassifierFeatures | PerChannelFeatures:
        """Trains the classifier on the training split, or loads its cached weights."""
        import torch

        dataset = evaluation.dataset("train") if self.dataset is None else self._trained_on(self.dataset, evaluation)
        images, labels = dataset.images, class_labels(dataset)
        classes = int(labels.max()) + 1
        if self.per_channel:
            images, labels, classes = single_channels(dataset, labels)
        updates = min(self.updates, -(-MAX_PASSES * len(labels) // TRAIN_BATCH))
        _, channels, height, width = images.shape
        key = {
            "architecture": ARCHITECTURE,
            "dataset": dataset.fingerprint,
            "labels": tensors_sha256({"labels": labels}),
            "updates": updates,
            "dim": self.dim,
            "seed": self.seed,
            # Omitted if it is false: weights that were cached before the option existed remain valid.
            **({"per_channel": True} if self.per_channel else {}),
        }

        def network() -> nn.Sequential:
            # Initial weights are drawn from the global generator, which training noise depends on.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                return classifier_network((channels, height, width), self.dim, classes)

        def train() -> dict[str, Tensor]:
            # A metric is usually computed with gradients disabled.
            with torch.inference_mode(False), torch.enable_grad(), full_precision(evaluation.device):
                trained = network().to(evaluation.device)
                train_classifier(trained, images, labels, updates, self.seed, evaluation=evaluation)
                return trained.state_dict()

        weights = cached_tensors(evaluation.places.cache / "classifier", "classifier", key, train, evaluation.progress)
        loaded = network()
        loaded.load_state_dict(weights)
        loaded.eval().requires_grad_(False).to(evaluation.device)
        shape = (channels, height, width)
        body, head = folded(loaded[0]), loaded[1]
        found = ClassifierFeatures(body, head, shape, evaluation.device, tensors_sha256(weights), self.dim)
        return PerChannelFeatures(found, dataset.images.shape[1]) if self.per_channel else found

    def _trained_on(self, config: DatasetConfig, evaluation: Evaluation) -> Dataset:
        """Another data set that the classifier is trained on; `ComponentError` for images of another shape or type."""
        from ganlab import load_dataset

        found, scored = (
            load_dataset(config, evaluation.places, "train", evaluation.progress),
            evaluation.dataset("train"),
        )
        images = found.images
        if images.shape[1:] != scored.images.shape[1:] or images.dtype != scored.images.dtype:
            got, wanted = (f"{str(of.dtype)[6:]} {tuple(of.shape[1:])}" for of in (images, scored.images))
            raise ComponentError(f"the classifier's data set has images of {got}; those to score are {wanted}")
        return found


def class_labels(dataset: Dataset) -> Tensor:
    """The class labels (N,) to train the classifier on. Raises `ComponentError` if the data set has none."""
    labels = class_labels_of(dataset)
    if labels is None or int(labels.max()) < 1:
        raise ComponentError(
            f"the features 'classifier' need class labels, of at least 2 classes, and {dataset.name} has none; "
            'set features = "inception", or `dataset` to another data set that has some'
        )
    return labels


def single_channels(dataset: Dataset, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """The classifier's data per channel: images (N * C, 1, H, W), classes (N * C,), and the number of classes."""
    import torch

    channels, classes = dataset.images.shape[1], class_count(dataset, labels)
    each = round(classes ** (1 / channels))
    if each < 2 or each**channels != classes:
        raise ComponentError(
            f"per_channel needs the {channels} channels' classes together, k^{channels} with k of at least 2; "
            f"{dataset.name} has {classes} classes; set per_channel = false"
        )
    powers = torch.tensor([each**power for power in reversed(range(channels))])
    return dataset.images.flatten(0, 1)[:, None], (labels[:, None] // powers % each).flatten(), each


def classifier_network(shape: tuple[int, int, int], dim: int, classes: int) -> nn.Sequential:
    """The classifier in two parts: images (N, C, H, W) in [-1, 1] to features (N, dim) to logits (N, classes)."""
    from torch import nn

    def convolution(before: int, after: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(before, after, kernel, stride, padding=1, bias=False)
        return [layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]

    class Average(nn.Module):
        # A mean, because adaptive pooling has no deterministic gradient on CUDA.
        def forward(self, maps: Tensor) -> Tensor:
            return maps.mean((2, 3))

    channels, height, width = shape
    stride = 1
    while max(height, width) > 16 * stride:
        stride *= 2
    body = nn.Sequential(
        *convolution(channels, 32, stride + 2, stride),
        *convolution(32, 64),
        *convolution(64, 128, 3, 2),
        *convolution(128, dim),
        Average(),
    )
    return nn.Sequential(body, nn.Linear(dim, classes))


def folded(body: Any) -> nn.Sequential:
    """The classifier's body in eval mode, with each batch norm folded into its convolution: a third less time."""
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    layers: list[Any] = []
    for layer in body:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    network: nn.Sequential = nn.Sequential(*layers).eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


def train_classifier(
    network: nn.Module, images: Tensor, labels: Tensor, updates: int, seed: int, *, evaluation: Evaluation
) -> None:
    """Trains the classifier in place, by AdamW with a one-cycle learning rate; deterministic on one device."""
    import torch
    from torch.nn.functional import cross_entropy

    cudnn = torch.backends.cudnn
    as_before = cudnn.deterministic, cudnn.benchmark
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LR, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=updates + 1)
    order = torch.Generator().manual_seed(seed)
    passes = -(-updates * TRAIN_BATCH // len(images))
    index = torch.cat([torch.randperm(len(images), generator=order) for _ in range(passes)])
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        for update, chosen in enumerate(torch.split(index, TRAIN_BATCH)[:updates], start=1):
            batch = prepared(images[chosen].to(evaluation.device))
            amounts = NOISE * torch.rand(len(batch), 1, 1, 1, generator=order)
            batch = batch + (amounts * torch.randn(batch.shape, generator=order)).to(batch.device)
            loss = cross_entropy(network(batch), labels[chosen].to(evaluation.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            evaluation.progress("training the classifier", update, updates)
    finally:
        cudnn.deterministic, cudnn.benchmark = as_before


def prepared(images: Tensor) -> Tensor:
    """uint8 images to the classifier's input."""
    import torch

    from ganlab import to_float

    return to_float(images).contiguous(memory_format=torch.channels_last)


@hookimpl
def register_features(register: Register[FeaturesConfig]) -> None:
    register("classifier", Classifier)
