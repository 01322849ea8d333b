"""scikit-learn's callbacks on estimators: `set_callbacks`, where scikit-learn has them (1.9)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.driver import listening
from daskps.run.engine import Engine

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # older: estimators have no `set_callbacks`

    class CallbackSupportMixin:  # type: ignore[no-redef]  # one of the two
        """Stands where scikit-learn's would, and has nothing."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return `method`; nothing calls it without callbacks."""
        return method


class Hooked(CallbackSupportMixin):
    """Base of estimators whose `fit` tells scikit-learn's callbacks of itself and of each pass.

    A fitted copy of the estimator is there at the end only: in between, parameters are on shards.
    What asks to stop ends training at the next clock.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let a `fit` that the class defines tell callbacks."""
        super().__init_subclass__(**kwargs)
        if "fit" in vars(cls):
            cls.fit = _hooked(cls.fit)


def _hooked(fit: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fit)
    def told(estimator: Any, *args: Any, **kwargs: Any) -> Any:
        inner = hasattr(estimator, "_callback_fit_ctx")  # called by the fit of a subclass
        away = kwargs.get("detach")  # the driver is in the cluster, callbacks are here
        if inner or away or not getattr(estimator, "_skl_callbacks", None):
            return fit(estimator, *args, **kwargs)
        return _tell(estimator, fit, args, kwargs)

    return told


@with_callbacks
def _tell(
    estimator: Any, fit: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    given = inspect.signature(fit).bind(estimator, *args, **kwargs).arguments
    data = {"X": list(given.values())[1], "y": given.get("y")}
    context = estimator._init_callback_context(max_subtasks=estimator.max_iter)
    context.call_on_fit_task_begin(estimator=estimator, **data)
    with listening(Passes(estimator, context, data)):
        result = fit(estimator, *args, **kwargs)
    context.call_on_fit_task_end(estimator=estimator, **data, reconstruction_attributes=dict)
    return result


class Passes:
    """A listener that tells callbacks of each pass; those that come again after a loss, once.

    Parameters
    ----------
    estimator, context
        What is fitted, and scikit-learn's context of it.
    data
        X and y, as they were given to `fit`.
    """

    def __init__(self, estimator: Any, context: Any, data: Mapping[str, Any]) -> None:
        self._estimator = estimator
        self._context = context
        self._data = data
        self._done: int | None = None
        self._open: Any = None

    def attach(self, engine: Engine) -> None:
        """Learn whom to tell that training is to stop."""
        self._engine = engine

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        """Take an event or action."""
        clocks = coordinator.policy.clocks_per_pass
        if self._done is None:  # a resumed run does not begin at the first
            self._done = coordinator.min_clock // clocks
        match told:
            case ev.Launch(clock=clock) if self._open is None and clock >= self._done * clocks:
                self._open = self._context.subcontext(task_name="pass")
                self._open.call_on_fit_task_begin(estimator=self._estimator, **self._data)
            case ev.TaskDone() if coordinator.min_clock >= (self._done + 1) * clocks:
                assert self._open is not None, "a pass ends that has not begun"
                stop = self._open.call_on_fit_task_end(estimator=self._estimator, **self._data)
                self._open, self._done = None, self._done + 1
                if stop:
                    self._engine.post(ev.StopRequested("callback"))
            case _:
                pass
