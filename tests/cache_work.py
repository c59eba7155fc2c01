"""What the processes of tests/faults/test_cache_races.py do; child processes take module functions by name."""

from __future__ import annotations

import os
import resource
import sys
import warnings
from pathlib import Path

import filelock
import torch

from ganlab.utils.cache import cached_tensors
from ganlab.utils.hashing import tensors_sha256
from support import until

KEY = {"of": "everything"}
NOBODY = 65534


def note(file: Path) -> None:
    """Adds this process's number to a file, in one write."""
    with file.open("a") as stream:
        stream.write(f"{os.getpid()}\n")


def noted(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def value() -> dict[str, torch.Tensor]:
    return {"t": torch.arange(500_000.0)}


def wait(root: Path, where: str) -> None:
    """Notes that this process has come here, and goes on once it may."""
    note(root / where)
    until((root / "go").exists)


def want_tensors(root: Path, stops: str) -> None:
    """Asks for the tensors, and stops while it computes or while it writes them until it may go on."""

    def compute() -> dict[str, torch.Tensor]:
        note(root / "computed")
        if stops == "computing":
            wait(root, "stopped")
        return value()

    fsync = os.fsync

    def slow_fsync(descriptor: int) -> None:
        if stops == "writing":
            wait(root, "stopped")
        fsync(descriptor)

    os.fsync = slow_fsync
    note(root / "started")
    found = cached_tensors(root / "cache", "x", KEY, compute)
    assert tensors_sha256(found) == tensors_sha256(value())
    note(root / "done")


def want_images(root: Path, stops: str) -> None:
    """Asks for decoded images, and stops at the third file, or before the file gets its name, until it may go on."""
    from ganlab_plugins.datasets import _decoded_cache, _decoded_file

    decode, fsync = _decoded_file.decode_image, os.fsync

    def slow_decode(path: Path, *options: int) -> object:
        if path.name == "2.png":
            note(root / "computed")
            if stops == "computing":
                wait(root, "stopped")
        return decode(path, *options)

    def slow_fsync(descriptor: int) -> None:
        if stops == "writing":
            wait(root, "stopped")
        fsync(descriptor)

    _decoded_file.decode_image = slow_decode  # type: ignore[assignment]
    os.fsync = slow_fsync
    note(root / "started")
    names = [f"{number}.png" for number in range(4)]
    images = _decoded_cache.decode_files(root / "set", names, size=2, cache=root / "cache")
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    note(root / "done")


def without_rights() -> None:
    """The superuser may write everywhere."""
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def with_little_room() -> None:
    """Files end at 64 KiB: what a full disk does to a large one."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))


def without_locks() -> None:
    """As on some network file systems."""

    def refuse(*arguments: object, **options: object) -> None:
        raise NotImplementedError("the file system has no locks")

    filelock.FileLock.acquire = refuse  # type: ignore[method-assign]


LIMITS = {"no rights": without_rights, "no room": with_little_room, "no locks": without_locks}


def asks_for_images(root: Path, limit: str, times: int) -> int:
    """Asks for decoded images; prints how many were decoded, or why there are none. 0 where each answer was right."""
    from ganlab import ComponentError
    from ganlab_plugins.datasets import _decoded_cache, _decoded_file

    LIMITS.get(limit, int)()
    decode, decoded = _decoded_file.decode_image, []

    def counted(path: Path, *options: int) -> object:
        decoded.append(path)
        return decode(path, *options)

    _decoded_file.decode_image = counted  # type: ignore[assignment]
    names = [f"{number}.png" for number in range(4)]
    for _ in range(times):
        try:
            images = _decoded_cache.decode_files(root / "set", names, size=2, cache=root / "cache")
        except ComponentError as error:
            sys.stdout.write(f"{error}\n")
        else:
            assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    sys.stdout.write(f"decoded {len(decoded)}\n")
    return 0


def asks(root: Path, limit: str, times: int) -> int:
    """Asks for the tensors where they cannot be written; prints each warning. 0 where each answer was right."""
    LIMITS.get(limit, int)()
    computed = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(times):
            found = cached_tensors(root / "cache", "x", KEY, lambda: computed.append(1) or value())  # type: ignore[func-returns-value]
            assert tensors_sha256(found) == tensors_sha256(value())
    sys.stdout.writelines(
        f"{line}\n" for line in (*(warning.message for warning in caught), f"computed {len(computed)}")
    )
    return 0
