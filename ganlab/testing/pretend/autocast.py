"""Autocast of the pretend device: which operations take bfloat16 and which float32.

A device that is written in Python has no rules of its own in torch, so those of torch's autocast of the CPU are
registered for it here, by operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

_KEY = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, "AutocastPrivateUse1"))  # noqa: B009 - no stub has it

LOWER = """
conv1d conv2d conv3d bmm mm linalg_vecdot baddbmm addmm addbmm linear _convolution.deprecated matmul conv_tbc
conv_transpose1d conv_transpose2d.input conv_transpose3d.input prelu scaled_dot_product_attention
"""
"""Operations that are computed in the lower precision."""

FULL = """
avg_pool3d binary_cross_entropy grid_sampler polar prod prod.dim_int quantile quantile.scalar nanquantile
nanquantile.scalar stft cdist grid_sampler_2d grid_sampler_3d trace view_as_complex cholesky cholesky_inverse
cholesky_solve inverse lu_solve orgqr ormqr pinverse max_pool3d max_unpool2d max_unpool3d adaptive_avg_pool3d
reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d replication_pad3d mse_loss cosine_embedding_loss
nll_loss nll_loss2d hinge_embedding_loss poisson_nll_loss smooth_l1_loss cross_entropy_loss l1_loss huber_loss
margin_ranking_loss soft_margin_loss triplet_margin_loss multi_margin_loss ctc_loss.IntList ctc_loss.Tensor kl_div
multilabel_margin_loss binary_cross_entropy_with_logits fft_fft fft_ifft fft_fft2 fft_ifft2 fft_fftn fft_ifftn fft_rfft
fft_irfft fft_rfft2 fft_irfft2 fft_rfftn fft_irfftn linalg_cond linalg_matrix_rank linalg_solve linalg_cholesky
linalg_svdvals linalg_eigvals linalg_eigvalsh linalg_inv linalg_householder_product linalg_tensorinv
linalg_tensorsolve fake_quantize_per_tensor_affine geqrf _lu_with_info qr svd triangular_solve
fractional_max_pool2d fractional_max_pool3d adaptive_max_pool3d multilabel_margin_loss_forward linalg_qr
linalg_cholesky_ex linalg_svd linalg_eig linalg_eigh linalg_lstsq linalg_inv_ex
"""
"""Operations that are computed in float32."""

WIDEST = "cat stack index_copy"
"""Operations that take the widest of their arguments' types."""


def register_autocast() -> Iterator[torch.library.Library]:
    """Registers the rules; yields the libraries, which must be kept."""
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    yield fallback
    library = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for names, cast in ((LOWER, _to_lower), (FULL, _to_full), (WIDEST, _to_widest)):
        for name in names.split():
            packet, _, overload = name.partition(".")
            operation = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
            if operation is not None:
                library.impl(name, _kernel(operation, cast))
    yield library


def _kernel(operation: Any, cast: Callable[[list[Tensor]], torch.dtype]) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_KEY):
            dtype = cast([one for one in _flat((args, tuple(kwargs.values()))) if _castable(one)])
            kwargs = {name: _as(value, dtype) for name, value in kwargs.items()}
            return operation(*_as(args, dtype), **kwargs)

    return kernel


def _to_lower(tensors: list[Tensor]) -> torch.dtype:
    return torch.get_autocast_dtype("pretend")


def _to_full(tensors: list[Tensor]) -> torch.dtype:
    return torch.float32


def _to_widest(tensors: list[Tensor]) -> torch.dtype:
    dtype = torch.get_autocast_dtype("pretend")
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _castable(value: Any) -> bool:
    """Whether autocast changes the type of a value: a tensor of the device, of floats that are not double."""
    return (
        isinstance(value, Tensor)
        and value.device.type == "pretend"
        and value.is_floating_point()
        and value.dtype != torch.float64
    )


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _flat(one)
    else:
        yield value


def _as(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)([_as(one, dtype) for one in value])
    return value.to(dtype) if _castable(value) else value
