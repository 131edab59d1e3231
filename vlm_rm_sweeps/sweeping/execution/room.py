"""Says when trials wait for room that something else on the cluster uses."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray import tune

from vlm_rm_sweeps.serving.placement import trials_that_fit
from vlm_rm_sweeps.serving.pool import PoolConfig, free_room
from vlm_rm_sweeps.serving.refused_nodes import refused_nodes
from vlm_rm_sweeps.training.trial_placement import asked_groups

_LOOK_S = 5.0
_USUAL_S = 30.0
"""Seconds in which a trial for which there is room usually gets it."""


class RoomCallback(tune.Callback):
    """Says once that trials wait for room, and again only when as many run as did not then.

    Nothing is said where as many trials run as fit on the cluster beside the reward servers: the others wait for their turn.

    Args:
        pools: The pools, which run.
        trial_cpus: CPUs reserved for a trial's own process.
        trial_gpus: GPUs reserved for a trial's own process.
        env_runners: Number of further processes of a trial, each with one CPU.
        left: Returns how many trials have not ended.
        say: Prints a line.
    """

    def __init__(
        self,
        pools: Sequence[PoolConfig],
        trial_cpus: float,
        trial_gpus: float,
        env_runners: int,
        left: Callable[[], int],
        say: Callable[[str], None],
    ) -> None:
        self._demand = pools, trial_cpus, trial_gpus, env_runners
        self._left, self._say = left, say
        self._looked_at = -float("inf")
        self._since: float | None = None
        """Since when as many trials have run, and others waited."""
        self._running = 0
        self._said: int | None = None
        """How many trials ran when that was said last."""

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        # Tune pickles its callbacks into its snapshots, which are never read.
        return tune.Callback, ()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look now and then."""
        now = time.monotonic()
        if now > self._looked_at + _LOOK_S:
            self._looked_at = now
            self.look(*asked_groups(), now)

    def look(self, running: int, waiting: int, now: float) -> None:
        """Say that trials wait if they do, and have for a while.

        Args:
            running: Trials that have room.
            waiting: Trials that have asked for it in vain.
            now: Time in seconds, as by `time.monotonic`.
        """
        is_short = waiting > 0 and (not running or running < trials_that_fit(running + waiting, refused_nodes(), *self._demand))
        if not is_short:
            self._since = self._said = None
            return
        if self._since is None or running != self._running:
            self._since, self._running = now, running
        if now < self._since + _USUAL_S or running == self._said:
            return
        self._said = running
        _, cpus, gpus, env_runners = self._demand
        beside = f", and 1 CPU for each of {env_runners} env runners" if env_runners else ""
        others = f" while {running} run{'s' if running == 1 else ''}" if running else ""
        waits = self._left() - running
        self._say(
            f"{waits} {'trials wait' if waits > 1 else 'trial waits'} for room{others}: each needs {cpus:g} CPUs and {gpus:g} "
            f"GPUs{beside}; {free_room(ray.available_resources())}"
        )
