"""The MLflow tracker: logs to a local SQLite database, without a server or a network. `mlflow ui` shows it.

Decisions:
- SQLite, since MLflow 3 refuses its older file store. Runs of several processes share the file.
- MLflow cannot delete a logged value, and a resumed run repeats steps. So a resumed run becomes a new MLflow run, to
  which all records up to its step are logged; the former is marked deleted, and `mlflow gc` removes it.
- MLflow's telemetry is switched off, unless MLFLOW_DISABLE_TELEMETRY says otherwise.
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
"""Most metrics that MLflow accepts in one call."""

STATUS = {"finished": "FINISHED", "interrupted": "KILLED"}
"""MLflow's status of a run by ganlab's; any other is FAILED."""

LONGEST = 500
"""Most characters of a parameter's value in older versions of MLflow."""


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
        # They log every table that they create, and log a traceback of each exception in addition to raising it.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient


def opened(file: Path, name: str) -> tuple[MlflowClient, str]:
    """Opens the MLflow database and the experiment of a name in it; each is created if it does not exist.

    One process at a time, since MLflow fails if two create the same tables.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        store = client_class()(tracking_uri=f"sqlite:///{file}")
        known = store.get_experiment_by_name(name)
        if known is not None:
            return store, str(known.experiment_id)
        return store, str(store.create_experiment(name, (file.parent / "mlartifacts" / name).as_uri()))


def options(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """An experiment's options as MLflow parameters: dotted paths, such as `penalty.0.weight`, and texts."""
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
    """A `Tracker` that logs to one MLflow run."""

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
    """A local MLflow database. Needs `ganlab[mlflow]`.

    View it with `mlflow ui --backend-store-uri sqlite:///mlflow.db`, which needs the full package `mlflow`.

    Logs values of ticks (`train/…`) and scores (`score/…`) as metrics, the experiment's options as parameters, its file
    and the sample grids as artifacts, in an MLflow experiment of the same name. Nothing is sent over a network.

    file: the database, created if it does not exist; a relative path is relative to the current folder. Artifacts are
        stored next to it in `mlartifacts/`.
    """

    file: str = field(default="mlflow.db", validator=min_len(1))

    def prepare(self) -> None:
        client_class()

    def build(self, run: RunFolder) -> MlflowRun:
        from mlflow.entities import Param

        file = Path(self.file).resolve()
        store, experiment = opened(file, run.info["name"])
        place = os.fsencode(run.path.resolve())
        token = hashlib.sha256(place + f" {run.info['started']}".encode()).hexdigest()[:16]
        folder = place.decode(errors="backslashreplace")
        if run.resumed_from is not None:
            for found in store.search_runs([experiment], f"tags.`ganlab.run` = '{token}'"):
                store.delete_run(found.info.run_id)
        name = os.path.basename(folder)
        made = store.create_run(experiment, run_name=name, tags={"ganlab.run": token, "ganlab.folder": folder})
        tracker = MlflowRun(run, store, made.info.run_id)
        toml = run.experiment_file.read_text(encoding="utf-8")
        store.log_batch(tracker.id, params=[Param(*option) for option in options(tomllib.loads(toml))])
        store.log_text(tracker.id, toml, "experiment.toml")
        tracker.log_all([*run.ticks(), *run.scores()])
        for grid in run.sample_grids().values():
            tracker.samples(0, grid)
        return tracker


@hookimpl
def register_trackers(register: Register[TrackerConfig]) -> None:
    register("mlflow", MLflow)
