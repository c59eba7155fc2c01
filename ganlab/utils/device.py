"""The torch device: which one `--device` selects, its name, and what devices of its type have and the CPU has not.

Decisions:
- A device is known by torch's own name: `cuda:1`, `mps`, `xpu`. What is true of one type only is asked here.
- Whatever draws random numbers on a device has its states saved, whether the run uses the device or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ganlab.utils.errors import UserError, counted, did_you_mean, quote


def pick_device(wanted: str) -> torch.device:
    """Returns the torch device for `--device`: "auto" is CUDA if available, "cuda:1" the second CUDA device.

    Raises UserError for what is no device, and for one that is not there.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError):
        raise UserError(
            f"--device {quote(wanted)}: expected auto or a device that is here: {', '.join(known_devices())}"
            + _advice(wanted)
        ) from None
    count = device_count(device.type)
    if (device.index or 0) >= count:
        name = {"cuda": "CUDA", "cpu": "CPU"}.get(device.type, device.type)
        there = counted(count, f"{name} device") if count else f"no {name} device"
        raise UserError(f"--device {device}: torch finds {there} here; there are: {', '.join(known_devices())}")
    return device if device.index is None or device.type == "cpu" else select_device(device)


def known_devices() -> list[str]:
    """The devices that there are, by torch's names: "cpu", then those of accelerators, such as "cuda:0"."""
    names = ["cpu"]
    for kind in _accelerators():
        count = device_count(kind)
        names += [f"{kind}:{index}" for index in range(count)] if count > 1 else [kind]
    return names


def _advice(wanted: object) -> str:
    """Which device was meant by a name that torch does not know."""
    name = str(wanted)
    if name.partition(":")[0] == "pretend":
        return "; call ganlab.testing.pretend.install() first, before any backward pass"
    if name.lower().startswith("gpu"):
        return "; did you mean 'cuda'?"
    return did_you_mean(name.lower(), ["auto", "cpu", "cuda", "mps", "xpu", "pretend"])


def device_count(kind: str) -> int:
    """How many devices of a type there are here; 0 for a type that torch only knows by name."""
    if kind == "cpu":
        return 1
    module = getattr(torch, kind, None)
    count = getattr(module, "device_count", None)
    return int(count()) if count is not None else 0


def device_name(device: torch.device) -> str:
    """The name of a device as run.json has it: of the model where torch knows it, else of the type."""
    name = getattr(_module(device), "get_device_name", None)
    return str(name(device)) if name is not None else device.type


def process_device(device: torch.device, local_rank: int) -> torch.device:
    """The device of one of several processes on a machine, made the current one: each has one of its own."""
    if device.type == "cpu":
        return device
    if local_rank >= (count := device_count(device.type)):
        there = counted(count, f"{device.type} device")
        raise UserError(f"--device {device}: {there} for more processes; start one process for each device")
    return select_device(torch.device(device.type, local_rank))


def select_device(device: torch.device) -> torch.device:
    """Makes a device the current one, which torch takes where its type is named without an index; returns it."""
    if select := getattr(_module(device), "set_device", None):
        select(device)
    return device


def can_capture(device: torch.device) -> bool:
    """Whether steps can be captured as graphs on a device: on CUDA."""
    return device.type == "cuda"


def has_tf32(device: torch.device) -> bool:
    """Whether a device has the precision "tf32": CUDA."""
    return device.type == "cuda"


def set_float32_precision(precision: str) -> None:
    """Sets this process's float32 products on CUDA to TF32 for "tf32", else to IEEE, whatever they were before."""
    backends: Any = torch.backends
    backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    # By its older name, which also sets that of recurrent layers: torch.export fails in a process where they differ.
    backends.cudnn.allow_tf32 = precision == "tf32"


def counts_updates(device: torch.device) -> bool:
    """Whether torch's optimisers can count their updates on a device (`capturable`), so that no step waits for it."""
    return device.type not in ("cpu", "mps")


def has_own_memory(device: torch.device) -> bool:
    """Whether a device has memory of its own, not that of the host."""
    return hasattr(_module(device), "mem_get_info")


def synchronize(device: torch.device) -> None:
    """Waits until a device has done all that it was given."""
    if wait := getattr(_module(device), "synchronize", None):
        wait() if device.type == "mps" else wait(device)


def free_cached_memory() -> None:
    """Gives memory that torch keeps for later back to the devices."""
    for kind in _accelerators():
        if free := getattr(getattr(torch, kind), "empty_cache", None):
            free()


def random_state(device: torch.device) -> torch.Tensor | None:
    """The state of the default random generator of one device; None for the CPU."""
    module = _module(device)
    if module is None:
        return None
    state: torch.Tensor = module.get_rng_state(*_index(device))
    return state


def set_random_state(device: torch.device, state: torch.Tensor) -> None:
    """Restores the random state of one device, which may have another index than when `random_state` was called."""
    _module(device).set_rng_state(state, *_index(device))


def random_states() -> dict[str, list[torch.Tensor]]:
    """The states of the default random generators of all devices but the CPU, by type, in order of index."""
    return {kind: _states(getattr(torch, kind)) for kind in _accelerators()}


def set_random_states(states: Mapping[str, Any]) -> None:
    """Restores the random states of `random_states`, of those devices that are here."""
    for kind in _accelerators():
        if kind in states:
            module = getattr(torch, kind)
            if hasattr(module, "set_rng_state_all"):
                module.set_rng_state_all(states[kind][: device_count(kind)])
            else:
                module.set_rng_state(states[kind][0])


def _states(module: Any) -> list[torch.Tensor]:
    return list(module.get_rng_state_all()) if hasattr(module, "get_rng_state_all") else [module.get_rng_state()]


def _index(device: torch.device) -> tuple[torch.device, ...]:
    """What tells the generators of a type of device from each other; nothing for mps, which has one."""
    return () if device.type == "mps" else (device,)


def _module(device: torch.device) -> Any:
    return getattr(torch, device.type, None) if device.type != "cpu" else None


def _accelerators() -> list[str]:
    """The types of devices, other than the CPU, of which there is one."""
    kinds = dict.fromkeys(("cuda", "xpu", "mps", torch._C._get_privateuse1_backend_name()))
    return [kind for kind in kinds if device_count(kind)]
