"""Part of the GPU script: which operations give other bits when they run again on the same values.

Each is run several times, forward and backward, with torch's fastest algorithms and with its deterministic ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gpu.part import Part, text_of

Work = Callable[..., Tensor]
FLOAT, BF16 = torch.float32, torch.bfloat16

REHEARSED = ("matmul", "batch_norm", "interpolate bilinear", "index_add", "scatter_add")


def _operations(n: int) -> dict[str, tuple[Work, tuple[tuple[int, ...], ...]]]:
    """Operations that networks of images use, with the shapes of their arguments for batches of n."""
    f = functional
    image, wide = (n, 64, 32, 32), (n, 64, 8, 8)

    def picked(x: Tensor) -> Tensor:
        return x[torch.arange(4 * len(x), device=x.device) % (len(x) // 2)]

    def added(x: Tensor) -> Tensor:
        index = torch.arange(len(x), device=x.device) % 3
        return torch.zeros_like(x[:3]).index_add(0, index, x)

    def scattered(x: Tensor) -> Tensor:
        index = (torch.arange(x.numel(), device=x.device) % 5).view_as(x)
        return torch.zeros(len(x), x.shape[1], device=x.device, dtype=x.dtype).scatter_add(1, index, x)

    def sampled(x: Tensor, grid: Tensor) -> Tensor:
        return f.grid_sample(x, grid.tanh().view(n, 16, 16, 2), align_corners=False)

    def of_labels(x: Tensor) -> Tensor:
        return f.cross_entropy(x, torch.arange(len(x), device=x.device) % x.shape[1])

    def embedded(weight: Tensor) -> Tensor:
        return f.embedding(torch.arange(n, device=weight.device) % 10, weight)

    return {
        "matmul": (torch.matmul, ((n * 8, 784), (784, 1024))),
        "linear with bias": (f.linear, ((n, 784), (1024, 784), (1024,))),
        "conv2d, 4x4 stride 2": (lambda x, w: f.conv2d(x, w, stride=2, padding=1), (image, (128, 64, 4, 4))),
        "conv2d, 3x3": (lambda x, w: f.conv2d(x, w, padding=1), (image, (64, 64, 3, 3))),
        "conv2d, grouped": (lambda x, w: f.conv2d(x, w, padding=1, groups=64), (image, (64, 1, 3, 3))),
        "conv_transpose2d, 4x4 stride 2": (
            lambda x, w: f.conv_transpose2d(x, w, stride=2, padding=1),
            (wide, (64, 32, 4, 4)),
        ),
        "conv1d": (lambda x, w: f.conv1d(x, w, padding=12, stride=4), ((n, 16, 1024), (32, 16, 25))),
        "batch_norm": (lambda x, w, b: f.batch_norm(x, None, None, w, b, training=True), (image, (64,), (64,))),
        "instance_norm": (f.instance_norm, (image,)),
        "group_norm": (lambda x, w, b: f.group_norm(x, 8, w, b), (image, (64,), (64,))),
        "layer_norm": (lambda x, w, b: f.layer_norm(x, (784,), w, b), ((n, 784), (784,), (784,))),
        "interpolate nearest": (lambda x: f.interpolate(x, scale_factor=2), (wide,)),
        "interpolate bilinear": (lambda x: f.interpolate(x, scale_factor=2, mode="bilinear"), (wide,)),
        "interpolate bicubic": (lambda x: f.interpolate(x, scale_factor=2, mode="bicubic"), (wide,)),
        "avg_pool2d": (lambda x: f.avg_pool2d(x, 2), (image,)),
        "max_pool2d, overlapping": (lambda x: f.max_pool2d(x, 3, 2), (image,)),
        "adaptive_avg_pool2d": (lambda x: f.adaptive_avg_pool2d(x, 3), (image,)),
        "reflection pad": (lambda x: f.pad(x, (3, 3, 3, 3), mode="reflect"), (image,)),
        "replication pad": (lambda x: f.pad(x, (3, 3, 3, 3), mode="replicate"), (image,)),
        "grid_sample": (sampled, (wide, (n, 16, 16, 2))),
        "embedding": (embedded, ((10, 64),)),
        "index, repeated": (picked, ((n, 512),)),
        "index_add": (added, ((n, 512),)),
        "scatter_add": (scattered, ((n, 512),)),
        "cumsum": (lambda x: x.cumsum(0), ((n * 16, 64),)),
        "cross_entropy": (of_labels, ((n, 10),)),
        "cdist": (torch.cdist, ((n, 64), (n, 64))),
        "attention": (f.scaled_dot_product_attention, ((n, 4, 64, 32),) * 3),
        "norm of rows": (lambda x: x.flatten(1).norm(dim=1), (image,)),
        "sum of all": (lambda x: x.sum(), (image,)),
        "sort": (lambda x: x.sort(0).values, ((n, 64),)),
    }


def run(part: Part) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    times, n = (2, 2) if part.rehearsed else (6, 64)
    operations = _operations(n)
    if part.rehearsed:
        part.leave_out(
            f"the kernels of a GPU, since these are the CPU's; {len(operations) - len(REHEARSED)} operations"
        )
        operations = {name: operations[name] for name in REHEARSED}
    for name, (work, shapes) in operations.items():
        row: dict[str, Any] = {"operation": name}
        for dtype in (FLOAT, BF16):
            for wanted in (False, True):
                key = f"{'float32' if dtype == FLOAT else 'bfloat16'}{', deterministic' if wanted else ''}"
                row[key] = said = _repeated(work, shapes, dtype, torch.device(part.device), times, wanted)
                if wanted and said.startswith("differs"):
                    part.fault(f"{name} in {key}: {said}, and torch does not refuse it")
        part.row(**row)


def _repeated(
    work: Work, shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype, device: torch.device, times: int, wanted: bool
) -> str:
    """Whether an operation and its gradients have the same bits each time, and whether torch refuses it."""
    random = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=random).to(device, dtype) for shape in shapes]
    torch.use_deterministic_algorithms(wanted)
    try:
        first = _once(work, given)
        different = sum(not all(map(torch.equal, first, _once(work, given))) for _ in range(times - 1))
    except RuntimeError as error:
        if "deterministic" in str(error):
            return "refused"
        return text_of(error)[:120]
    finally:
        torch.use_deterministic_algorithms(False)
    return f"differs, {different} of {times - 1} times" if different else "same"


def _once(work: Work, given: list[Tensor]) -> list[Tensor]:
    arguments = [tensor.clone().requires_grad_() for tensor in given]
    result = work(*arguments)
    gradient = torch.linspace(-1, 1, result.numel(), device=result.device, dtype=result.dtype).view_as(result)
    result.backward(gradient)
    return [result.detach(), *(tensor.grad for tensor in arguments if tensor.grad is not None)]
