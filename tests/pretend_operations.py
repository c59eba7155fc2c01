"""Operations to try the pretend device with: they cross devices, read values back, or do neither."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganlab.testing.pretend import DeviceMismatch, install, record_events
from ganlab.utils.errors import UserError
from ganlab.utils.rng import global_state, set_global_state

DEVICE = "pretend"
HERE = str(Path(__file__))


def line_of(work: Callable[..., Any]) -> str:
    return f"{HERE}:{work.__code__.co_firstlineno}"


# Each on a line of its own, by which it is found.
MIXED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "an elementwise operation": lambda there, here: there + here,
    "in place": lambda there, here: there.add_(here),
    "a scalar of the CPU in place": lambda there, here: here[0].add_(there[0]),
    "a product": lambda there, here: there @ here.view(3, 1),
    "a layer": lambda there, here: nn.functional.linear(there, here.view(1, 3)),
    "torch.where": lambda there, here: torch.where(here > 0, there, there),
    "torch.cat": lambda there, here: torch.cat([there, here]),
    "torch.stack of scalars": lambda there, here: torch.stack([there.sum(), here.sum()]),
    "an index of the CPU": lambda there, here: there[here.long()],
    "an index of the device": lambda there, here: here[there.long()],
    "a mask of the CPU": lambda there, here: there[here > 0],
    "an assignment by index": lambda there, here: there.__setitem__(here.long(), 0.0),
    "gather": lambda there, here: there.gather(0, here.long()),
    "a generator of the CPU": lambda there, here: torch.rand(3, device=DEVICE, generator=torch.Generator()),
    "a generator of the device": lambda there, here: torch.rand(3, generator=torch.Generator(DEVICE)),
    "another generator in place": lambda there, here: there.normal_(generator=torch.Generator()),
    "another generator on the CPU": lambda there, here: here.normal_(generator=torch.Generator(DEVICE)),
    "another device of its kind": lambda there, here: there + torch.ones(3, device="pretend:1"),
    "a copy of its form on the CPU": lambda there, here: torch.zeros_like(there, device="cpu") + there,
    "numpy": lambda there, here: there.numpy(),
    "an array": lambda there, here: there * here.numpy(),
    "in a backward pass": lambda there, here: Crossing.apply(there.requires_grad_()).sum().backward(),
}


class Crossing(torch.autograd.Function):
    """Its gradient is on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * torch.ones(3)


def install_late() -> int:
    """Installs the device after a backward pass, which says so each time."""
    torch.ones(1, requires_grad=True).sum().backward()
    for _ in range(2):
        with pytest.raises(UserError, match=r"^the pretend device was installed after a backward pass of this process"):
            install()
    return 0


def find_mixed() -> dict[str, str]:
    found = {}
    for name, work in MIXED.items():
        try:
            work(torch.arange(3.0).to(DEVICE), torch.arange(3.0))
            found[name] = "not found"
        except DeviceMismatch as error:
            found[name] = str(error)
    return found


READING: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "item": ("reads a value back", lambda x: x.sum().item()),
    "bool": ("reads a value back", lambda x: bool(x.sum() > 0)),
    "float": ("reads a value back", lambda x: float(x[0])),
    "format": ("reads a value back", lambda x: f"{x.sum():.2f}"),
    "its text": ("reads a value back", lambda x: f"{x}"),
    "numbers in a list": ("reads a value back", lambda x: torch.tensor([x[0], x[1]])),
    "an assignment by a mask": ("reads a value back", lambda x: x.__setitem__(x > 0, x[1:] + 1)),
    "an inverse": ("reads a value back", lambda x: torch.linalg.inv(torch.diag(x + 1))),
    "singular values": ("reads a value back", lambda x: torch.linalg.svdvals(torch.diag(x))),
    "nonzero": ("reads a value back", lambda x: x.nonzero()),
    "a mask": ("reads a value back", lambda x: x[x > 1]),
    "masked_select": ("reads a value back", lambda x: x.masked_select(x > 1)),
    "unique": ("reads a value back", lambda x: x.unique()),
    "equal": ("reads a value back", lambda x: torch.equal(x, x + 1)),
    "cpu": ("copies to the CPU", lambda x: x.cpu()),
    "to": ("copies to the CPU", lambda x: x.to("cpu")),
    "tolist": ("copies to the CPU", lambda x: x.tolist()),
    "copy_": ("copies to the CPU", lambda x: torch.empty(3).copy_(x)),
    "to the device": ("copies from the CPU", lambda x: torch.ones(3).to(DEVICE)),
    "copy_ to the device": ("copies from the CPU", lambda x: x.copy_(torch.ones(3))),
    "a number of the CPU": ("takes a CPU scalar", lambda x: x + torch.tensor(1.0)),
}

QUIET: dict[str, Callable[[Tensor], Any]] = {
    "a loss": lambda x: nn.functional.softplus(-x).mean() + 2.5,
    "a number": lambda x: x.clamp(0, 1).mul_(3).add_(1),
    "an index": lambda x: x[torch.arange(2, device=DEVICE)] + x[1:],
    "a mask that is assigned": lambda x: torch.where(x > 0, x, 0.0).masked_fill_(x > 1, 0.0),
    "a number for a mask": lambda x: x.__setitem__(x > 1, 0.0),
    "repeats whose number is known": lambda x: x.repeat_interleave(torch.ones_like(x).long(), output_size=3),
    "random numbers": lambda x: torch.randn(3, device=DEVICE) * torch.rand_like(x) + torch.randperm(3, device=DEVICE),
    "a shape": lambda x: x.new_zeros(len(x), x.shape[0]).T.reshape(-1),
}


def find_events() -> dict[str, list[str]]:
    found = {}
    for name, work in {**{name: work for name, (_, work) in READING.items()}, **QUIET}.items():
        x = torch.arange(3.0).to(DEVICE)
        with record_events() as events:
            work(x)
        found[name] = [str(event) for event in events]
    return found


def compare_operations() -> list[str]:
    """Layers, gradients of gradients, optimisers, copies and random numbers on both devices."""
    wrong = []
    near: set[int] = set()
    results: dict[str, list[Tensor]] = {}
    for device in ("cpu", DEVICE):
        made = results[device] = []
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.ConvTranspose2d(4, 3, 3), nn.Flatten()
        ).to(memory_format=torch.channels_last)
        network = network.to(device)
        torch.manual_seed(1)
        x = torch.randn(4, 3, 6, 6, device=device).requires_grad_()
        gradient = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)[0]
        gradient.square().sum().backward()
        made += [gradient, *(p.grad for p in network.parameters() if p.grad is not None), *network.buffers()]
        for optimizer in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, torch.optim.NAdam):
            for options in ({"foreach": True}, {"foreach": False}):
                copied = copy.deepcopy(network)
                steps = optimizer(copied.parameters(), lr=0.01, **options)
                for group in steps.param_groups:
                    if "capturable" in group and device == DEVICE:
                        group["capturable"] = True
                vars(steps)["_warned_capturable_if_run_uncaptured"] = True
                with record_events() as events:
                    for _ in range(2):
                        steps.zero_grad()
                        copied(x.detach()).square().sum().backward()
                        steps.step()
                wrong += [f"{optimizer.__name__} {options}: {event}" for event in events]
                near |= set(range(len(made), len(made) + len(list(copied.parameters()))))
                made += list(copied.parameters())
        with torch.autocast(device, dtype=torch.bfloat16):
            made += [network(x), nn.functional.mse_loss(network(x), network(x) + 1)]
        generator = torch.Generator(device).manual_seed(3)
        made += [torch.randn(5, device=device, generator=generator), torch.randn(5, device=device)]
        made += [torch.tensor([1, 2], device=device), torch.full((2,), 0.5, device=device)[[1, 0]]]
        view = made[-1].view(2, 1)
        view.add_(1)  # which the tensor that it is a view of sees
        made += [torch.arange(5, device=device), torch.linspace(0, 1, 3, device=device)]  # which resize their result
        made.append(torch.mul(made[-1], 2, out=torch.empty(0, device=device)))
        made += [x.detach().to("cpu").to(device), copy.deepcopy(network).state_dict()["0.weight"]]
    for index, (one, other) in enumerate(zip(results["cpu"], results[DEVICE], strict=True)):
        if other.device.type != DEVICE:
            wrong.append(f"result {index} is on {other.device}")
        if one.shape != other.shape:
            wrong.append(f"result {index} has the shape {tuple(other.shape)}; on the CPU {tuple(one.shape)}")
            continue
        # Where an optimiser's count of updates is on the device its formula is another, and rounds otherwise.
        tolerance = 1e-4 if index in near else 0.0
        if one.dtype != other.dtype or not torch.allclose(one, other.cpu(), rtol=tolerance, atol=tolerance):
            wrong.append(f"result {index}: {one} {other}")
    return wrong


def look_at_memory() -> list[bool]:
    """What is allocated without a value is NaN; pickling is refused; a state survives, and streams are apart.

    A state of the first device goes on on the second, and that of two devices where there is one.
    """
    refused = False
    try:
        torch.save(torch.ones(1, device=DEVICE), "file")
    except TypeError:
        refused = True
    torch.manual_seed(5)
    torch.rand(3)
    on_device = torch.rand(3, device=DEVICE).cpu()
    state = torch.get_device_module(DEVICE).get_rng_state()
    again = torch.rand(3, device=DEVICE).cpu()
    torch.get_device_module(DEVICE).set_rng_state(state)
    saved = global_state(torch.device("pretend:0"))
    moved = [torch.rand(3, device="pretend:0").cpu()]
    saved["pretend"] = [*saved["pretend"], saved["pretend"][0]]
    set_global_state(saved, torch.device("pretend:1"))
    moved.append(torch.rand(3, device="pretend:1").cpu())
    torch.get_device_module(DEVICE).set_rng_state(state)
    return [
        bool(torch.empty(3, device=DEVICE).isnan().all()),
        refused,
        torch.equal(on_device, torch.rand(3, generator=torch.Generator().manual_seed(5))),
        torch.equal(again, torch.rand(3, device=DEVICE).cpu()),
        torch.ones(1, device="pretend:1").device == torch.device("pretend:1"),
        torch.equal(*moved),
    ]
