"""An hour of random kills: python tests/soak.py [--seconds 3600] [--seed 0]. Too long for a test of the suite.

Three small experiments are run again and again, each to its end through kills at random moments, signals that ask it to
stop, bits flipped in its latest checkpoint and in the cache, and records cut short. Each must end with the bits of
the same run left alone. What was done, and whether it held, is printed at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from children import Child, Command
from ganlab.training.checkpoint import DamagedCheckpoint, list_checkpoints, load_checkpoint
from image_files import save
from run_folders import assert_same_run

EVERY = {"log_every": 5, "sample_every": 400, "checkpoint_every": 50}
TRAIN = {"steps": 2000, "batch_size": 16, "sample_count": 8, **EVERY}
FID = {"name": "fid", "every": 500, "samples": 16, "features": {"name": "classifier", "updates": 20}}
MLP = {"name": "mlp", "hidden": [32]}
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "mlp": {
        "dataset": {"name": "digits"},
        "generator": {**MLP, "latent_dim": 8},
        "discriminator": {**MLP, "dropout": 0.2},
        "loss": {"name": "bce"},
        "penalty": [{"name": "l2_generator", "weight": 0.01, "every": 3}],
        "train": TRAIN | {"ema": 0.9, "discriminator_steps": 2},
        "metric": [FID],
    },
    "dcgan": {
        "dataset": {"name": "digits", "size": 16},
        "generator": {"name": "dcgan", "latent_dim": 8, "channels": 4},
        "discriminator": {"name": "dcgan", "channels": 4},
        "loss": {"name": "relativistic"},
        "optimizer": {"name": "rmsprop", "lr": 1e-4},
        "train": TRAIN | {"checkpoint_keep": 2},
        "metric": [FID | {"samples": 32}],
    },
    "streamed": {
        "dataset": {"name": "image_folder", "path": "images", "size": 8},
        "generator": {**MLP, "latent_dim": 8},
        "discriminator": MLP,
        "loss": {"name": "least_squares"},
        "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
        "train": TRAIN | {"resident_gb": 0, "fresh_noise": False},
    },
}


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))


def disturb(run: Path, done: Counter[str], draw: random.Random) -> None:
    """Damages what an interrupted run has left, now and then; one checkpoint of two at the least stays whole."""
    saved = list(list_checkpoints(run / "checkpoints").values())
    whole = [path for path in saved if is_whole(path)]
    if len(whole) >= 2 and draw.random() < 0.2:
        flip(draw.choice(list(whole[-1].iterdir())), draw)
        done["checkpoints damaged"] += 1
    log = run / "log.jsonl"
    if log.exists() and draw.random() < 0.1:
        with log.open("a") as stream:
            stream.write('{"step": 99999, "loss_gen')
        done["records cut"] += 1
    files = [path for path in Path("cache").rglob("*") if path.suffix in (".safetensors", ".json", ".npy")]
    if files and draw.random() < 0.1:
        flip(draw.choice(files), draw)
        done["caches damaged"] += 1


def is_whole(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except DamagedCheckpoint:
        return False
    return True


def to_the_end(name: str, run: Path, done: Counter[str], draw: random.Random) -> None:
    while True:
        child = Child(Command("run", f"{name}.toml", "--out", run, "--resume"), Path("log"))
        child.process.join(draw.uniform(0.1, 4))
        if child.process.exitcode is None:
            how = draw.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], [7, 1, 1, 1])[0]
            os.kill(child.pid, how)
            done[how.name] += 1
            code = child.ended()
            if how != signal.SIGKILL and code == 75:
                done["stopped and saved"] += 1
        if (code := child.ended()) == 0:
            return
        if code not in (75, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGUSR1, 130):  # before it listens a signal kills
            raise AssertionError(f"{run}: ended with {code}: {child.said}")
        if run.is_dir():
            disturb(run, done, draw)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, done, failures = random.Random(options.seed), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ |= {"GANLAB_CACHE": f"{folder}/cache", "GANLAB_DATA": f"{folder}/data"}
        pixels = np.random.default_rng(0)
        for number in range(200):
            save(Path(f"data/images/{number}.png"), pixels.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        for name, table in EXPERIMENTS.items():
            Path(f"{name}.toml").write_text(tomli_w.dumps({"name": name, **table}))
            child = Child(Command("run", f"{name}.toml", "--out", f"{name}-alone"), Path("log"))
            assert child.ended() == 0, child.said
        until, number = time.monotonic() + options.seconds, 0
        while time.monotonic() < until:
            number += 1
            name = draw.choice(list(EXPERIMENTS))
            run = Path(f"{name}-{number}")
            try:
                to_the_end(name, run, done, draw)
                assert_same_run(Path(f"{name}-alone"), run, checkpoints=False)
            except AssertionError as error:
                failures.append(f"{run}: {error}")
                print(failures[-1], flush=True)
            done["runs"] += 1
            shutil.rmtree(run)
            Path("log").unlink()
        os.chdir("/")
    print(", ".join(f"{count} {what}" for what, count in sorted(done.items())))
    print(f"{len(failures)} runs that were not as the one left alone")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
