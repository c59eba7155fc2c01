"""The pretend device as torch's backend: `install` registers it, once a process; then torch knows it by its name."""

from __future__ import annotations

import atexit
import time
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration

from ganlab.testing.pretend import tensor as tensors
from ganlab.testing.pretend.autocast import register_autocast
from ganlab.testing.pretend.random_state import COUNT, stream
from ganlab.testing.pretend.replacements import replace_in_torch
from ganlab.testing.pretend.tensor import NAME, living_tensors, run_operation
from ganlab.utils.errors import UserError

_SET_UP = "_setup_privateuseone_for_python_backend"
_libraries: list[torch.library.Library] = []
_works: list[bool] = []
"""Whether a backward pass on the device has been tried, which needs to be done once."""


class _Module:
    """What `torch.pretend` has of what `torch.cuda` has: devices, random states, memory."""

    __name__ = f"torch.{NAME}"

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return COUNT

    def current_device(self) -> int:
        return tensors.current_index()

    def set_device(self, device: Any) -> None:
        tensors._current[0] = self._index(device)

    def get_device_name(self, device: Any = None) -> str:
        return f"{NAME} device (torch {torch.__version__}, on the CPU)"

    def synchronize(self, device: Any = None) -> None:
        pass

    def memory_allocated(self, device: Any = None) -> int:
        """The bytes of all living tensors, where several share memory that of one."""
        index = self._index(device)
        memory = (tensor.data_on_cpu.untyped_storage() for tensor in living_tensors() if tensor.device_index == index)
        return sum({storage.data_ptr(): storage.nbytes() for storage in memory}.values())

    def manual_seed(self, seed: int) -> None:
        stream(self.current_device()).manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        for index in range(COUNT):
            stream(index).manual_seed(seed)

    def get_rng_state(self, device: Any = None) -> Tensor:
        return stream(self._index(device)).get_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        stream(self._index(device)).set_state(state)

    def get_rng_state_all(self) -> list[Tensor]:
        return [stream(index).get_state() for index in range(COUNT)]

    def set_rng_state_all(self, states: list[Tensor]) -> None:
        for index, state in enumerate(states):
            stream(index).set_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def _index(self, device: Any) -> int:
        if isinstance(device, int):
            return device
        index = None if device is None else torch.device(device).index
        return self.current_device() if index is None else index


def why_missing() -> str:
    """Why there can be no pretend device here: the part of torch that it is made of, which is private; else empty."""
    if hasattr(backend_registration, _SET_UP) and hasattr(torch._C, "_acc"):
        return ""
    return f"needs torch 2.14, whose backends can be written in Python; this is {torch.__version__}"


def install() -> None:
    """Makes the pretend device known to torch in this process, for good; raises UserError where torch cannot.

    It must come before the first backward pass of the process, in which torch makes a thread for each type of device.
    """
    if not _libraries:
        _register()
    if _works:
        return
    try:
        torch.ones(1, device=NAME, requires_grad=True).sum().backward()
        _works.append(True)
    except RuntimeError as error:
        if "device_ready_queues_" not in str(error):
            raise
        raise UserError(
            f"the {NAME} device was installed after a backward pass of this process, in which torch made its threads; "
            "call ganlab.testing.pretend.install() before the first one"
        ) from None


def _register() -> None:
    """Registers the pretend device, its operations, and the functions of torch that know it, once a process."""
    if why := why_missing():
        raise UserError(f"--device {NAME}: {why}")
    getattr(backend_registration, _SET_UP)(NAME, _Module())
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda op, *args, **kwargs: run_operation(op, args, kwargs), "PrivateUse1")
    _libraries.append(library)
    _libraries.extend(register_autocast())
    replace_in_torch()
    # Autograd's thread of the device may still be letting go of its last tensors, and must not when Python has ended.
    atexit.register(time.sleep, 0.05)
