"""MLflow's database in a file of this machine: no server, no network. `mlflow ui` shows it.

Decisions:
- SQLite, since MLflow 3 refuses its older store of plain files. Runs of several processes share the file.
- MLflow cannot take back a value, and a resumed run takes steps again. So a resumed run is a new one there, which gets
  all that the records have up to its step; the former is marked deleted, which `mlflow gc` makes final.
- Usage data that MLflow would send to its makers is switched off, unless MLFLOW_DISABLE_TELEMETRY says otherwise.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from attrs.validators import min_len
from filelock import FileLock

from ganlab import ComponentError, Register, TrackerConfig, hookimpl, numbers_of, one_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from ganlab import RunFolder

AT_ONCE = 1000
"""Numbers that MLflow takes in one call."""

STATUS = {"finished": "FINISHED", "interrupted": "KILLED"}
"""How a run ended, in MLflow's words; all else is FAILED."""

LONGEST = 500
"""Characters of an option's value; older versions of MLflow take no more."""


def client_class() -> type[MlflowClient]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import alembic  # noqa: F401
        import sqlalchemy  # noqa: F401
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        cause = one_line(error, limit=100)
        raise ComponentError(f"it needs other packages ({cause}): pip install 'ganlab[mlflow]'") from error
    for name in ("mlflow", "alembic"):
        # They tell of every table that they make, and print a traceback of what they raise besides.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient


def opened(file: Path, name: str) -> tuple[MlflowClient, str]:
    """The database, and in it the experiment of a name; each is made where it is not there.

    One process at a time, since MLflow fails where two make the same tables.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        store = client_class()(tracking_uri=f"sqlite:///{file}")
        known = store.get_experiment_by_name(name)
        if known is not None:
            return store, str(known.experiment_id)
        return store, str(store.create_experiment(name, (file.parent / "mlartifacts" / name).as_uri()))


def options(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """The experiment's options as names with dots and texts; `penalty.0.weight` is one of a list of tables."""
    if isinstance(value, dict):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = enumerate(value)
    else:
        yield at, str(value)[:LONGEST]
        return
    for key, item in items:
        yield from options(item, f"{at}.{key}" if at else str(key))


@define
class MlflowRun:
    """A `Tracker` that writes to one run of MLflow."""

    run: RunFolder
    client: MlflowClient
    id: str

    def log(self, record: Mapping[str, Any]) -> None:
        self.log_all([record])

    def log_all(self, records: Iterable[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        numbers = (
            Metric(name, value, now, record["step"]) for record in records for name, value in numbers_of(record).items()
        )
        while some := list(islice(numbers, AT_ONCE)):
            self.client.log_batch(self.id, some)

    def samples(self, step: int, path: Path) -> None:
        self.client.log_artifact(self.id, str(path), "samples")

    def close(self) -> None:
        self.client.set_terminated(self.id, STATUS.get(self.run.info["status"], "FAILED"))


@frozen
class MLflow:
    """A database of MLflow on this machine. Needs `ganlab[mlflow]`.

    To look: `mlflow ui --backend-store-uri sqlite:///mlflow.db`, which needs the whole package `mlflow`.

    Numbers of ticks (`train/…`) and scores (`score/…`) as metrics, the experiment's options as parameters, its file and
    the sample grids as artifacts, in an MLflow experiment with the name of this one. Nothing leaves the machine.

    file: the database, made where there is none; a relative path is taken from the current folder. Artifacts lie beside
    it in `mlartifacts/`.
    """

    file: str = field(default="mlflow.db", validator=min_len(1))

    def prepare(self) -> None:
        client_class()

    def build(self, run: RunFolder) -> MlflowRun:
        from mlflow.entities import Param

        file = Path(self.file).resolve()
        store, experiment = opened(file, run.info["name"])
        folder = str(run.path.resolve())
        token = hashlib.sha256(f"{folder} {run.info['started']}".encode()).hexdigest()[:16]
        if run.resumed_from is not None:
            for found in store.search_runs([experiment], f"tags.`ganlab.run` = '{token}'"):
                store.delete_run(found.info.run_id)
        made = store.create_run(experiment, run_name=run.path.name, tags={"ganlab.run": token, "ganlab.folder": folder})
        tracker = MlflowRun(run, store, made.info.run_id)
        toml = run.experiment_file.read_text(encoding="utf-8")
        store.log_batch(tracker.id, params=[Param(*option) for option in options(tomllib.loads(toml))])
        store.log_text(tracker.id, toml, "experiment.toml")
        tracker.log_all([*run.ticks(), *run.scores()])
        for grid in sorted(run.samples.glob("step-*.png")):
            tracker.samples(0, grid)
        return tracker


@hookimpl
def register_trackers(register: Register[TrackerConfig]) -> None:
    register("mlflow", MLflow)
