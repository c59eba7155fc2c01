"""Networks of the package timm as features: DINOv2, and any other by its name.

Stein et al. 2023, "Exposing flaws of generative model evaluation metrics and their unfair treatment of diffusion
models" (arXiv:2306.04675), asked people how real images look: a FID in Inception's features does not rank generators
as they do, one in those of DINOv2 ViT-L/14 (Oquab et al. 2023, arXiv:2304.07193) comes closer.

Decisions:
- Images are resized whole, without a crop, and as PIL does: antialiased, across and then down, each time clipped and
  rounded to the 256 levels. That is what the paper's own code (dgm-eval) does unless it is told otherwise, and what
  timm's transforms do; on noise fewer than 8% of the pixels are not PIL's, by a level or two. (Pillow 13 may begin with
  the height where an image is not square.)
- DINOv2 sees 224x224 pixels, as in that paper. Its position embedding is for 518x518; timm resamples it when it loads
  the weights, and torch.hub's DINOv2 in a way of its own, so figures may differ a little from dgm-eval's. They have not
  been held against each other.
- Weights reach timm as tensors in memory, by its own `pretrained_cfg_overlay`: so its conversion of foreign names and
  sizes applies, and no file of a stranger is opened by code that may run it.
- A network that is random in part would score without a word, and timm passes over tensors that a file lacks when it
  is asked for features at once. So a network is loaded with the classifier that its file has, and loses it afterwards;
  and where names do not tell, a second one is loaded: what was drawn at random differs between the two.
- A file that was downloaded is used from then on without asking whether there is a newer one: weights must not change
  in the middle of a run.
"""

from __future__ import annotations

import contextlib
import difflib
import http.client
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from ganlab import (
    ComponentError,
    Evaluation,
    FeaturesConfig,
    FittingBatches,
    Register,
    full_precision,
    hookimpl,
    one_line,
    read_weights,
    tensors_sha256,
)

if TYPE_CHECKING:
    import torch
    from timm.models import PretrainedCfg
    from torch import Tensor, nn

BATCH = {"cpu": 64, "cuda": 512}
"""Images at a time by kind of device, fewer where memory runs out."""

DINOV2_SIZE = (224, 224)

HUB_FILE = "model.safetensors"
"""The name of the weights in each of timm's repositories on the Hugging Face hub."""

HUB_TIMEOUT = 10
"""Seconds until a hub that does not answer counts as out of reach; its own client goes on for most of a minute."""

UNFIT = (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError)
"""What timm's conversion and loading was seen to raise, or may, on tensors that are another network's."""


@frozen
class Preprocessing:
    """uint8 images (N, 1 or 3, H, W) to what a network takes: float32 (N, 3, *size). Grey becomes three channels."""

    size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        return (
            f"uint8, resized to {self.size[0]}x{self.size[1]} by antialiased {self.interpolation} (across, then down, "
            f"each rounded to uint8, as PIL does), / 255, (x - {list(self.mean)}) / {list(self.std)}"
        )

    def __call__(self, images: Tensor) -> Tensor:
        from torch.nn.functional import interpolate

        pixels = images.expand(-1, 3, -1, -1).float()
        for size in ((pixels.shape[2], self.size[1]), self.size):
            pixels = interpolate(pixels, size, mode=self.interpolation, antialias=True).clamp(0, 255).round()
        mean, std = (pixels.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels / 255 - mean) / std


@frozen
class TimmFeatures:
    """`Features`: uint8 images (N, 1 or 3, H, W) of any size to float32 (N, dim). Grey becomes three channels."""

    network: nn.Module
    prepared: Preprocessing
    device: torch.device
    fingerprint: str
    name: str
    dim: int
    preprocessing: str
    batches: FittingBatches = field(init=False, repr=False)

    @batches.default
    def _batches(self) -> FittingBatches:
        return FittingBatches(lambda part: self.network(self.prepared(part.to(self.device))), BATCH[self.device.type])

    def __call__(self, images: Tensor, /) -> Tensor:
        import torch

        if images.shape[1] not in (1, 3):
            raise ComponentError(f"{self.name} takes images of 1 or 3 channels, got {images.shape[1]}")
        with torch.no_grad(), full_precision(self.device):
            return self.batches(images)


@frozen
class DINOv2:
    """DINOv2 with patches of 14 pixels, at 224x224: its class token after the last norm. Needs `ganlab[timm]`.

    size: 384, 768, 1024 or 1536 features; the paper's choice is large.
    weights: a file of its weights, timm's or Meta's: .safetensors, or a .pth that holds tensors only. Without it the
        published file (90 MB, 350 MB, 1.2 GB or 4.5 GB) is downloaded once into the cache.
    """

    size: Literal["small", "base", "large", "giant"] = "large"
    weights: str | None = None

    def build(self, evaluation: Evaluation) -> TimmFeatures:
        """Loads the network onto the evaluation's device."""
        model, table = f"vit_{self.size}_patch14_dinov2.lvd142m", f'name = "dinov2", size = "{self.size}"'
        network, cfg = loaded_network(model, self.weights, table, evaluation, img_size=DINOV2_SIZE)
        cfg["input_size"] = (3, *DINOV2_SIZE)
        return timm_features(network, f"dinov2-{self.size}", evaluation.device, cfg)


@frozen
class Timm:
    """The pooled features of any network of timm, at its own input size. Needs `ganlab[timm]`.

    model: its name in timm, with the tag of its weights: see `timm.list_pretrained()`.
    weights: a file of its weights: .safetensors, or a .pth that holds tensors only. Without it the published file is
        downloaded once into the cache.
    """

    model: str
    weights: str | None = None

    def build(self, evaluation: Evaluation) -> TimmFeatures:
        """Loads the network onto the evaluation's device."""
        table = f'name = "timm", model = "{self.model}"'
        network, cfg = loaded_network(self.model, self.weights, table, evaluation)
        name = ".".join(part for part in (cfg["architecture"], cfg.get("tag")) if part)
        return timm_features(network, name, evaluation.device, cfg)


def timm_features(network: nn.Module, name: str, device: torch.device, cfg: Mapping[str, Any]) -> TimmFeatures:
    """The features of a loaded network, whose images are prepared as timm's configuration of it says."""
    import timm
    import torch

    data = timm.data.resolve_data_config(pretrained_cfg=cfg)
    _, *size = data["input_size"]
    prepared = Preprocessing((size[0], size[1]), data["interpolation"], tuple(data["mean"]), tuple(data["std"]))
    fingerprint = tensors_sha256(network.state_dict())
    network.to(device)
    with torch.no_grad(), full_precision(device):
        found = network(prepared(torch.zeros(1, 3, *size, dtype=torch.uint8, device=device)))
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        got = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ComponentError(f"{name} has no pooled features: for one image it gives {got}, wanted (1, dim)")
    says = f"{prepared}; network of timm {timm.__version__}"
    return TimmFeatures(network, prepared, device, fingerprint, name, found.shape[1], says)


def loaded_network(
    model: str, weights: str | None, table: str, evaluation: Evaluation, **options: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """A network of timm with a file's weights, or with the published ones, and timm's configuration of it.

    It is in eval mode, without gradients, without its classifier, and on the CPU. `table` is what an experiment says
    to choose it, for errors; `options` are for its constructor.
    """
    import torch

    published = published_network(model)
    if weights is None:
        source = "the published file"
        tensors = published_tensors(published, model, table, evaluation.places.cache / "weights")
    else:
        source = weights
        tensors = read_weights(Path(weights).expanduser())
    # The constructor draws initial weights before it loads ours, from the generator that training noise comes from.
    with torch.random.fork_rng(devices=[]):
        network = fitted_network(model, published, tensors, source, options)
        if network.state_dict().keys() - tensors.keys():
            again = fitted_network(model, published, tensors, source, options).state_dict()
            drawn = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, again[name])]
            if drawn:
                raise ComponentError(misfit(source, model, f"it lacks {len(drawn)} tensors, such as {drawn[0]}"))
    cfg = {name: value for name, value in network.pretrained_cfg.items() if name != "state_dict"}
    network.pretrained_cfg = network.default_cfg = cfg  # timm would keep a second copy of all weights in it
    return network.eval().requires_grad_(False), cfg


def published_network(model: str) -> PretrainedCfg:
    """What timm knows of a network and of its published weights."""
    try:
        import timm
    except ImportError as error:
        cause = one_line(error, limit=100)
        raise ComponentError(f"networks of timm need another package ({cause}): pip install 'ganlab[timm]'") from error
    known = {*timm.list_models(), *timm.list_models(include_tags=True)}
    published = timm.get_pretrained_cfg(model) if model in known else None
    if published is None:
        # A wrong tag is nearest to the tags of its own network.
        among = [name for name in known if name.startswith(model.split(".", 1)[0] + ".")] or known
        near = difflib.get_close_matches(model, sorted(among), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "timm.list_pretrained() has the names"
        raise ComponentError(f"timm has no network {one_line(repr(model), 60)}; {hint}")
    return published


def fitted_network(
    model: str, published: PretrainedCfg, tensors: dict[str, Tensor], source: str, options: Mapping[str, Any]
) -> Any:
    """timm's network with these tensors, and without the classifier that it may have had in them."""
    import timm

    names = [published.classifier] if isinstance(published.classifier, str) else published.classifier or []
    last = [tensors[f"{name}.weight"] for name in names if f"{name}.weight" in tensors]
    # Without a classifier that has timm's name for it, either the names are foreign ones or there is none.
    for classes in [last[0].shape[0]] if last and last[0].ndim else dict.fromkeys((published.num_classes, 0)):
        # Where these numbers of classes are equal timm insists, for most networks, that all names and shapes match.
        overlay = {"state_dict": tensors, "num_classes": classes}
        try:
            network: Any = timm.create_model(
                model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **options
            )
        except UNFIT as error:
            cause = error
            continue
        if hasattr(network, "reset_classifier"):
            network.reset_classifier(0)
        return network
    raise ComponentError(misfit(source, model, one_line(cause, limit=160))) from cause


def misfit(source: str, model: str, why: str) -> str:
    return f"{source} does not hold the weights of timm's {model}: {why}"


def published_tensors(published: PretrainedCfg, model: str, table: str, folder: Path) -> dict[str, Tensor]:
    """The published weights of a network, downloaded into `folder` where they are not there yet."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    from safetensors import SafetensorError
    from timm.models import load_state_dict_from_hf
    from torch.hub import load_state_dict_from_url

    to_set = f'set features = {{ {table}, weights = "FILE" }}'
    if not published.has_weights:
        raise ComponentError(f"there are no published weights of {model}; {to_set}")
    repository = published.hf_hub_id
    url: Any = huggingface_hub.hf_hub_url(repository, HUB_FILE) if repository else published.url
    if repository:
        kept = huggingface_hub.try_to_load_from_cache(repository, HUB_FILE, cache_dir=folder)
        if isinstance(kept, str):
            return read_weights(Path(kept))
    # Besides OSError that is the root of what the hub's HTTP library raises; which library that is has changed twice.
    http_errors: Any = HfHubHTTPError.__bases__
    try:
        tensors: dict[str, Tensor]
        if repository:
            # A repository without this file was reached too, and timm knows by which other names it may go.
            with contextlib.suppress(EntryNotFoundError):
                huggingface_hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT)
            tensors = load_state_dict_from_hf(repository, weights_only=True, cache_dir=folder)
        else:
            tensors = load_state_dict_from_url(url, str(folder), "cpu", progress=False, weights_only=True)
        return tensors
    except (
        *(OSError, RuntimeError, http.client.HTTPException, pickle.UnpicklingError, SafetensorError),
        *http_errors,
    ) as error:
        raise ComponentError(
            f"the weights of {model} could not be downloaded ({one_line(error)}); download {url} elsewhere, put the "
            f"file here, and {to_set}"
        ) from error


@hookimpl
def register_features(register: Register[FeaturesConfig]) -> None:
    register("dinov2", DINOv2)
    register("timm", Timm)
