"""The trackers `wandb` (Weights & Biases) and `trackio`, which have one interface: init, log, Image, finish.

Decisions:
- Both are local unless asked: wandb writes offline files into the run folder, trackio a database on this machine.
- What was logged cannot be taken back, and a resumed run repeats steps. So a resumed run is logged anew, from its
  records, under the identity that it has: its former offline file, or its rows, are removed. A server already has what
  it was sent; there the same run is continued after its last step.
- wandb loses what it has not yet written when the process is killed, trackio half a second; for the same reason both
  are complete again after a resume.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import shutil
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field, frozen
from attrs.validators import min_len, optional

from ganlab import ComponentError, Register, TrackerConfig, hookimpl, numbers_of, one_line

if TYPE_CHECKING:
    from ganlab import RunFolder

SERVERS = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Environment variables by which trackio sends to a server; it does so wherever one is set."""


def imported(name: str) -> Any:
    """Imports wandb or trackio; raises ComponentError with what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        cause = one_line(error, limit=100)
        raise ComponentError(f"it needs another package ({cause}): pip install 'ganlab[{name}]'") from error


def identity_of(run: RunFolder) -> tuple[str, str]:
    """Of a run folder, what wandb and trackio call it: a name for people, and an id that it has after a resume too."""
    place = os.fsencode(run.path.resolve())
    token = hashlib.sha256(place + f" {run.info['started']}".encode()).hexdigest()[:12]
    folder = Path(place.decode(errors="backslashreplace"))
    return "-".join(folder.parts[-2:]).strip("/"), token


def config_of(run: RunFolder) -> dict[str, Any]:
    """Of a run folder, the configuration for wandb and trackio: every option of the experiment, and the folder."""
    folder = os.fsencode(run.path.resolve()).decode(errors="backslashreplace")
    return tomllib.loads(run.experiment_file.read_text(encoding="utf-8")) | {"run_folder": folder}


@define
class LoggedRun:
    """A `Tracker` that logs to a run of wandb or of trackio."""

    module: Any
    client: Any

    def begin(self, run: RunFolder, first: int) -> None:
        """Logs to wandb or trackio what the run recorded before, in the order of its steps, from step `first` on."""
        grids = run.sample_grids()
        by_step: dict[int, list[dict[str, Any]]] = {step: [] for step in grids}
        for record in [*run.ticks(), *run.scores()]:
            by_step.setdefault(record["step"], []).append(record)
        for step in sorted(step for step in by_step if step >= first):
            for record in by_step[step]:
                self.log(record)
            if step in grids:
                self.samples(step, grids[step])

    def log(self, record: Mapping[str, Any]) -> None:
        values: dict[str, Any] = dict(numbers_of(record))
        if "alarms" in record:
            values["alarms"] = "; ".join(record["alarms"])
        self.client.log(values, step=record["step"])

    def samples(self, step: int, path: Path) -> None:
        self.client.log({"samples": self.module.Image(str(path))}, step=step)

    def close(self) -> None:
        with silenced():
            self.client.finish()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Drops what trackio prints in the body, which would break the live view."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@frozen
class Wandb:
    """Weights & Biases, offline by default. Needs `ganlab[wandb]`.

    Logs values of ticks (`train/…`), scores (`score/…`), sample grids and alarms, and the experiment as configuration,
    to a wandb run. Offline it is in the run folder's `wandb/`, and nothing is sent;
    `wandb sync RUN/wandb/offline-run-*` uploads it. Without an API key, `online` is offline too, and a warning says so.

    mode: "offline" or "online".
    project: the wandb project; by default the experiment's name.
    entity: the user or team that owns the project; by default wandb's own.
    """

    mode: Literal["offline", "online"] = "offline"
    project: str | None = field(default=None, validator=optional(min_len(1)))
    entity: str | None = field(default=None, validator=optional(min_len(1)))

    def prepare(self) -> None:
        imported("wandb")

    def build(self, run: RunFolder) -> LoggedRun:
        wandb = imported("wandb")
        mode = self.mode
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            message = "tracker wandb: no API key, so it is offline; `wandb login`, then `wandb sync` the run's wandb/"
            warnings.warn(message, stacklevel=2)
            mode = "offline"
        name, token = identity_of(run)
        for former in (run.path / "wandb").glob(f"offline-run-*-{token}"):
            shutil.rmtree(former)
        client = wandb.init(
            project=self.project or run.info["name"],
            entity=self.entity,
            name=name,
            id=token,
            dir=str(run.path),
            mode=mode,
            config=config_of(run),
            resume="allow" if mode == "online" else None,
            reinit="create_new",  # a run of the caller's own goes on
            settings=wandb.Settings(
                silent=True, console="off", symlink=False, save_code=False, disable_git=True, x_disable_stats=True
            ),
        )
        tracker = LoggedRun(wandb, client)
        tracker.begin(run, client.step if mode == "online" else 0)
        return tracker


@frozen
class Trackio:
    """Trackio, a local database with a dashboard. Needs `ganlab[trackio]`; view it with `trackio show`.

    Logs values of ticks (`train/…`), scores (`score/…`), sample grids and alarms, and the experiment as configuration.
    The database lies where trackio has it (TRACKIO_DIR), and nothing is sent, unless TRACKIO_SPACE_ID or
    TRACKIO_SERVER_URL names a server.

    project: the trackio project; by default the experiment's name.
    """

    project: str | None = field(default=None, validator=optional(min_len(1)))

    def prepare(self) -> None:
        with silenced():
            imported("trackio")

    def build(self, run: RunFolder) -> LoggedRun:
        trackio = imported("trackio")
        name, token = identity_of(run)
        project, name = self.project or run.info["name"], f"{name}-{token}"
        sent = any(os.environ.get(variable) for variable in SERVERS)
        if not sent:
            self._forget(trackio, project, name)
        with silenced():
            client = trackio.init(
                project=project,
                name=name,
                config=config_of(run),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        trackio.context_vars.current_run.set(None)  # which trackio would finish, and say so, when Python ends
        tracker = LoggedRun(trackio, client)
        tracker.begin(run, (run.resumed_from or 0) + 1 if sent and run.resumed_from is not None else 0)
        return tracker

    def _forget(self, trackio: Any, project: str, name: str) -> None:
        """Removes the run of this name, and its images, from trackio's local database."""
        with contextlib.suppress(ValueError):  # the project does not exist yet
            for former in trackio.Api().runs(project):
                if former.name == name:
                    former.delete()
        shutil.rmtree(trackio.utils.MEDIA_DIR / project / name, ignore_errors=True)


@hookimpl
def register_trackers(register: Register[TrackerConfig]) -> None:
    register("wandb", Wandb)
    register("trackio", Trackio)
