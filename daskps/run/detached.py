"""Runs whose driver lives in the cluster: what `fit(detach=True)` starts and `attach` finds again.

What runs in the cluster is `daskps.run.detached_driver`'s.
"""

from __future__ import annotations

import copy
import os
import re
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dask

from daskps import html
from daskps.cluster import current_client
from daskps.errors import CheckpointError, RunFailed, RunTimeout
from daskps.run import checkpoint
from daskps.run import detached_driver as driver

if TYPE_CHECKING:
    from distributed import Client, Future

ALONE = 60.0
"""Seconds that a run may be without any worker before whoever waits for it is told."""


class DetachedRun:
    """A training run that goes on in the cluster, whoever watches; see `attach`.

    Parameters
    ----------
    name
        Of the run.
    client
        Connected to the cluster that it runs on.
    future
        Of its driver.
    """

    def __init__(self, name: str, client: Client, future: Future[Any]) -> None:
        self.name = name
        self._client = client
        self._future = future

    @property
    def status(self) -> dict[str, Any]:
        """How it goes.

        ``state`` is ``"waiting"`` for a worker, ``"running"``, ``"finished"`` or ``"failed"``;
        ``clock`` of ``clocks`` that all partitions have finished, ``loss`` of the last one,
        ``recoveries``, ``starts`` of the driver, and its ``worker``, as soon as they are known.
        """
        found: dict[str, Any] = dict(driver.ask(self._client, driver.read, self.name))
        task = found.pop("task")
        found.pop("stop", None)
        state = {"memory": "finished", "erred": "failed", "gone": "gone", "processing": "running"}
        return {"name": self.name, "state": state.get(task, "waiting"), **found}

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status["state"] in ("finished", "failed", "gone")

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the fitted estimator.

        Parameters
        ----------
        timeout
            Seconds to wait; None waits for as long as there are workers that train.

        Raises
        ------
        RunTimeout
            If it has not ended by then; it goes on.
        RunFailed
            If the cluster is gone, or somebody called `forget`.
        DaskpsError
            Or whatever else ended training.
        """
        from distributed import CancelledError, wait

        start = seen = time.monotonic()
        while self._future.status in ("pending", "lost"):
            now = time.monotonic()
            if timeout is not None and now - start >= timeout:
                raise RunTimeout(
                    f"run {self.name!r} has not ended within {timeout:g} s ({self.status}); it "
                    "goes on: call result() again, or stop()."
                )
            if self._client.status != "running":
                raise RunFailed(f"the cluster of run {self.name!r} is gone; start another one.")
            if self._client.scheduler_info()["workers"]:
                seen = now
            elif now - seen > ALONE:
                raise RunTimeout(f"run {self.name!r} waits for a worker, and there is none.")
            try:
                wait([self._future], timeout=1.0 if timeout is None else min(1.0, timeout))
            except (TimeoutError, CancelledError):
                continue
        if self._future.status == "cancelled":
            raise RunFailed(f"run {self.name!r} was forgotten, or its cluster restarted.")
        return self._future.result(timeout=driver.ASK)

    def stop(self) -> None:
        """Let training end at the next clock that is common to everybody, with a usable model."""
        driver.ask(self._client, driver.report, self.name, {"stop": True})

    def forget(self) -> None:
        """Let the cluster forget the run, its model, and if it still trains, end it at once."""
        key = driver.key_of(self.name)
        if key in self._client.list_datasets():
            self._client.unpublish_dataset(key)
        self._future.release()
        driver.ask(self._client, driver.forget, self.name)

    def __repr__(self) -> str:
        return f"DetachedRun({self.name!r})"

    def _repr_html_(self) -> str:
        return html.facts("daskps run in the cluster", self.status)


def start_detached(
    estimator: Any, name: str | bool, resume: bool, callback: Any, arguments: Mapping[str, Any]
) -> DetachedRun:
    """Start `fit` of an estimator in the cluster of the current client; return at once.

    Parameters
    ----------
    estimator
        With the attribute `checkpoint`.
    name
        Of the run; True makes one up.
    resume
        Whether to go on from cuts that are there.
    callback
        Must be None: nobody would hear it.
    arguments
        Of its `fit`; paths may be relative.

    Raises
    ------
    ValueError
        If the name is none or is taken, or there is a callback.
    CheckpointError
        If there are cuts of another run.
    RunFailed
        If there is no cluster.
    """
    if callback is not None:
        raise ValueError(
            f"callback={callback!r} with detach={name!r}; expected None: the run goes on in the "
            "cluster, see DetachedRun.status."
        )
    client = _client(None)
    chosen = f"run-{uuid.uuid4().hex[:8]}" if name is True else str(name)
    if not re.fullmatch(r"[\w.-]+", chosen):
        raise ValueError(f"detach={name!r}; expected True, or a name of letters, digits, '_.-'.")
    # as a worker in another folder can use them
    estimator, key = copy.copy(estimator), driver.key_of(chosen)
    estimator.checkpoint = store = _anywhere(estimator.checkpoint)
    if getattr(estimator, "user_store", None) is not None:
        estimator.user_store = _anywhere(estimator.user_store)
    if key in client.list_datasets():
        raise ValueError(
            f"a run of the name {chosen!r} is on the cluster; choose another name, or "
            f"daskps.attach({chosen!r}).forget() it."
        )
    if store is not None and not resume and checkpoint.published(store):
        raise CheckpointError(
            f"checkpoint={store!r} holds checkpoints of an earlier run; pass resume=True to go on "
            "from them, or name another place, or delete it."
        )
    # whatever is there from now on is of this very run: a driver that is run again goes on from it
    given = {name: _anywhere(x) for name, x in arguments.items()}
    job = driver.Job(chosen, estimator, {**given, "resume": resume or store is not None})
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
        future = client.submit(driver.work, job, key=key, pure=False)
    client.publish_dataset(future, name=key)
    return DetachedRun(chosen, client, future)


def _anywhere(x: Any) -> Any:
    """Return a path as workers in other folders can use it, and anything else as it is."""
    if not isinstance(x, (str, os.PathLike)) or "://" in os.fspath(x):
        return x
    return os.path.abspath(x)


def attach(name: str | None = None, *, client: Client | None = None) -> DetachedRun:
    """Find a run that `fit(detach=True)` started, from whatever process.

    Parameters
    ----------
    name
        Of the run; None takes the only one.
    client
        Connected to its cluster; the current client by default.

    Raises
    ------
    KeyError
        If there is no such run, or several and no name is given.
    RunFailed
        If there is no client.

    Examples
    --------
    >>> with Client("tcp://host:8786"):  # doctest: +SKIP
    ...     run = daskps.attach("ads")
    ...     print(run.status)
    ...     model = run.result(timeout=3600)
    """
    connected = _client(client)
    prefix = driver.key_of("")
    found = [str(n)[len(prefix) :] for n in connected.list_datasets() if str(n).startswith(prefix)]
    if name is None and len(found) == 1:
        name = found[0]
    if name is None or name not in found:
        raise KeyError(f"no run {name!r} is on the cluster; expected one of {sorted(found)}.")
    future = connected.get_dataset(driver.key_of(name))
    return DetachedRun(name, connected, future)


def _client(client: Client | None) -> Client:
    found = current_client() if client is None else client
    if found is None:
        raise RunFailed(
            "there is no Dask client; a detached run needs a cluster that outlives this process: "
            "call distributed.Client(address) first."
        )
    from daskps.run.dask_hub import DaskpsScheduler

    found.register_plugin(DaskpsScheduler())
    return found
