"""One trial of a sweep as a Tune trainable: train, evaluate at the end, checkpoint.

A trainable of our own keeps results small: passed to Tune directly, RLlib's algorithm reports 480 values each time.

A trial goes on from the newest checkpoint in its folder, whoever starts it again: Tune after its process died, or a sweep that
is resumed. A checkpoint is written when Tune asks for the *next* result. By then the driver has written the results before it
down, so a trial that goes on has neither lost nor skipped any.

An error that comes back at the same step is in the trial and not in the machine: then the trial ends by itself, with the error in
its last result. All else (whatever Ray itself raises, reward servers that are gone, a full disk) is left to Tune, which tries a
trial again as often as the sweep file says.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.rllib.core import ALL_MODULES
from ray.rllib.core.rl_module.rl_module import RLModule

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.metrics import (
    CLIP_RETURN,
    ENCODE_SECONDS,
    ENV_STEPS,
    EVALUATION,
    FAILURE,
    GOAL_FRACTION,
    ITERATION_SECONDS,
    MICRO_BATCH,
    NOTE,
    RENDER_SECONDS,
    REPLAY_SECONDS,
    SAMPLING_SECONDS,
    STEPS_PER_SECOND,
    SUCCESS,
    TIME_MS,
    TRUE_RETURN,
    UPDATE_SECONDS,
    UPDATES,
    UPDATES_PER_STEP,
    WAIT_SECONDS,
)
from vlm_rm_sweeps.serving.pool import PoolUnavailable
from vlm_rm_sweeps.serving.telemetry import TrialMetrics
from vlm_rm_sweeps.tasks.gym_task import GymEnv
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.algorithms import build_algorithm
from vlm_rm_sweeps.training.audit import Audit, AuditPlan
from vlm_rm_sweeps.training.checkpoints import TrialFolder
from vlm_rm_sweeps.training.connectors import reward as connector
from vlm_rm_sweeps.training.resumption import get_training_state, set_training_state
from vlm_rm_sweeps.training.settings import ALGORITHMS, AlgorithmSettings, BestBy

_AUDIT = "audit"


@dataclass(frozen=True)
class TrainingJob:
    """All that one trial needs. `reward` is None for a trial that learns from the true reward.

    With 0 `steps` the policy is evaluated as it is before training. Checkpoints go to `folder`, about every `checkpoint_every`
    environment steps and at the end. The best policy is that after the result with the highest `best_by`: the mean over the
    episodes that ended since the result before. `env` is what `task` was made of, if it is not one of this project's own.
    `audit` needs a `reward`. `rendering`: how the states are drawn for people where there is no reward; by default the task's own.
    """

    task: Task
    settings: AlgorithmSettings
    reward: connector.RewardSource | None
    seed: int
    steps: int
    steps_per_result: int
    evaluation_episodes: int
    folder: Path
    checkpoint_every: int
    best_by: BestBy = "success"
    env: GymEnv | None = None
    audit: AuditPlan | None = None
    rendering: Rendering | None = None

    @property
    def algorithm(self) -> str:
        return next(name for name, settings in ALGORITHMS.items() if isinstance(self.settings, settings))

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of itself, as JSON."""
        reward = None
        if self.reward is not None:
            reward = {
                "model": self.reward.pool.model_id,
                "precision": self.reward.pool.precision,
                "micro_batch": self.reward.pool.micro_batch,
                "goal": list(self.reward.spec.goal_prompts),
                "baseline": list(self.reward.spec.baseline_prompts),
                "alpha": self.reward.spec.alpha,
            }
        rendering = (self.reward.rendering if self.reward else self.rendering) or self.task.rendering()
        return {
            "task": self.task.name,
            "env": self.env.model_dump(mode="json") if self.env else None,
            "rendering": asdict(rendering),
            "algorithm": self.algorithm,
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "reward": reward,
        }


class Stopwatch:
    """Adds up the seconds spent in one method of one object."""

    def __init__(self, owner: Any, method: str) -> None:
        self._seconds = 0.0
        timed = getattr(owner, method)

        def stopped(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return timed(*args, **kwargs)
            finally:
                self._seconds += time.perf_counter() - started

        setattr(owner, method, stopped)

    def lap(self) -> float:
        """Seconds since the last lap."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def _is_the_machine(error: Exception) -> bool:
    """Whether an error may be of the machine, and not of the trial, even if it comes back at the same step."""
    if isinstance(error, RayTaskError):
        return False  # raised by what ran elsewhere
    return isinstance(error, RayError | PoolUnavailable | OSError)


class TrainableTrial(tune.Trainable):
    """`config["run"]` has its TrainingJob, `job`, and what Tune reserves for it, `resources`, such as `{"CPU": 1, "GPU": 0}`."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([config["run"]["resources"]])

    def setup(self, config: dict[str, Any]) -> None:
        # Trials share the machine with one another and with the reward servers.
        torch.set_num_threads(1)
        self._job: TrainingJob = config["run"]["job"]
        self._algorithm: Any = build_algorithm(
            self._job.task,
            self._job.settings,
            self._job.reward,
            self._job.seed,
            self._job.steps_per_result,
            self._job.evaluation_episodes,
        )
        self._ray_metrics = TrialMetrics(self._job.folder.name)
        self._updates_before = 0.0
        # RLlib's own timers are slowly moving averages for one call; these add up to where an iteration's time went.
        self._stopwatches = {
            SAMPLING_SECONDS: Stopwatch(self._algorithm.env_runner, "sample"),
            REPLAY_SECONDS: Stopwatch(self._algorithm.local_replay_buffer, "sample"),
            UPDATE_SECONDS: Stopwatch(self._algorithm.learner_group, "update"),
        }
        self._least_micro_batch: float = self._job.reward.pool.micro_batch if self._job.reward else 0
        self._audit: Audit | None = None
        if self._job.audit is not None and self._job.reward is not None:
            self._audit = Audit(self._job.audit, self._job.reward.spec, self._job.seed)
            connector.attach_audit(self._algorithm.env_runner, self._audit)
        self._folder = TrialFolder(self._job.folder)
        self._notes: list[str] = []
        self._env_steps = self._saved_at = 0
        self._done = False
        self._results: list[dict[str, Any]] = []
        self._restore()
        best = self._folder.best()
        self._best = self._merit(best.content["metrics"]) if best else (-math.inf, -math.inf)

    def _restore(self) -> None:
        checkpoint, problems = self._folder.last()
        self._notes += [f"a checkpoint is not used: {problem}" for problem in problems]
        if checkpoint is not None:
            state = checkpoint.training_state()
            set_training_state(self._algorithm, state)
            if self._audit is not None:
                self._audit.set_state(state[_AUDIT])
            self._env_steps = self._saved_at = checkpoint.env_steps
            self._results, self._done = checkpoint.content["results"], checkpoint.content["done"]
            self._updates_before = self._results[-1].get(UPDATES, 0.0)  # an untrained policy has none
            self._notes.append(f"goes on from step {checkpoint.env_steps:,}")

    def step(self) -> dict[str, Any]:
        if not self._done:  # else it was done, but died before it could say so
            if self._env_steps - self._saved_at >= self._job.checkpoint_every:
                self._save()
            try:
                self._results.append(self._train() if self._job.steps else self._stay_untrained())
                if self._done and not self._save():
                    # Started again, it can go on from the checkpoint before; finished, it would be without for ever.
                    raise OSError(f"the last checkpoint could not be written: {self._notes[-1]}")
            except Exception as error:
                reason = reason_of(error.cause if isinstance(error, RayTaskError) else error)
                if isinstance(error, UserError) or (
                    not _is_the_machine(error) and self._folder.fails_again(self._env_steps, reason)
                ):
                    return {"done": True, FAILURE: reason}
                raise
        notes, self._notes = self._notes, []
        return self._results[-1] | {"done": self._done} | ({NOTE: "; ".join(notes)} if notes else {})

    def _train(self) -> dict[str, Any]:
        started = time.perf_counter()
        result = self._algorithm.train()
        seconds = time.perf_counter() - started
        runner = result["env_runners"]
        self._env_steps = int(result["num_env_steps_sampled_lifetime"])
        self._ray_metrics.sampled(int(runner["num_env_steps_sampled"]))
        updates = self._updates(result)
        metrics = self._returns(runner)
        metrics |= {
            STEPS_PER_SECOND: runner["num_env_steps_sampled"] / seconds,
            UPDATES: updates,
            # What was asked for is rounded: each rollout is followed by a whole number of updates, or some by none.
            UPDATES_PER_STEP: (updates - self._updates_before) / runner["num_env_steps_sampled"],
            RENDER_SECONDS: runner.get(RENDER_SECONDS),
            ENCODE_SECONDS: runner.get(ENCODE_SECONDS),
            WAIT_SECONDS: runner.get(WAIT_SECONDS),
            MICRO_BATCH: self._micro_batch(runner),
            ITERATION_SECONDS: seconds,
        } | {name: stopwatch.lap() for name, stopwatch in self._stopwatches.items()}
        self._updates_before = updates
        self._keep_if_best(metrics)
        self._done = self._env_steps >= self._job.steps
        if self._audit is not None and (self._done or self._audit.due(self._env_steps)):
            metrics |= self._audit.point(self._env_steps)
        if self._done:
            metrics |= self._evaluate()
        return self._as_result(metrics)

    def _stay_untrained(self) -> dict[str, Any]:
        self._done = True
        return self._as_result(self._evaluate())

    def _evaluate(self) -> dict[str, Any]:
        evaluated = self._returns(self._algorithm.evaluate()["env_runners"])
        return {EVALUATION + name: value for name, value in evaluated.items()}

    def _as_result(self, metrics: dict[str, Any]) -> dict[str, Any]:
        finite = {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}
        return finite | {ENV_STEPS: self._env_steps, TIME_MS: int(time.time() * 1000)}

    def _merit(self, metrics: dict[str, Any]) -> tuple[float, float]:
        """What policies are compared by: the chosen metric; where that is equal (no success yet), the true return."""
        return metrics[self._job.best_by], metrics[TRUE_RETURN]

    def _keep_if_best(self, metrics: dict[str, Any]) -> None:
        values = {name: metrics.get(name) for name in (self._job.best_by, TRUE_RETURN)}
        compared = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        if len(compared) < len(values) or self._merit(compared) < self._best:
            return
        if self._write(lambda module, content: self._folder.save_best(module, content | {"metrics": compared})):
            self._best = self._merit(compared)

    def _save(self) -> bool:
        """Whether it could be written."""

        def save(module: RLModule, content: dict[str, Any]) -> None:
            progress = {"results": self._results, "done": self._done}
            audited = {_AUDIT: self._audit.get_state()} if self._audit is not None else {}
            self._folder.save(module, get_training_state(self._algorithm) | audited, content | progress)

        written = self._write(save)
        self._saved_at = self._env_steps
        return written

    def _write(self, save: Callable[[RLModule, dict[str, Any]], Any]) -> bool:
        module = self._algorithm.env_runner.module
        network = {"env_steps": self._env_steps, "model_config": dict(module.model_config)}
        try:
            save(module, self._job.description() | network)
        except OSError as error:
            # A full disk must not end a trial that could go on: the checkpoint before this one is still there.
            self._notes.append(f"no checkpoint at step {self._env_steps:,}: {error}")
            return False
        return True

    def _returns(self, runner: dict[str, Any]) -> dict[str, float | None]:
        """CLIP and true return under their own names. RLlib's own return is of whatever reward was learned from."""
        returns = {name: runner.get(name) for name in (TRUE_RETURN, SUCCESS, GOAL_FRACTION)}
        if self._job.reward is not None:
            returns[CLIP_RETURN] = runner.get("episode_return_mean")
        return returns

    def _micro_batch(self, runner: dict[str, Any]) -> float | None:
        used = runner.get(MICRO_BATCH)
        if self._job.reward is not None and used is not None and used < self._least_micro_batch:
            self._least_micro_batch = used
            self._notes.append(
                f"a reward server ran out of memory and goes on with micro-batches of {used:g}: from here on rewards may differ in "
                "their last bits from those of an undisturbed trial"
            )
        return used

    def _updates(self, result: dict[str, Any]) -> float:
        trained = result.get("learners", {}).get(ALL_MODULES, {}).get("num_module_steps_trained_lifetime", 0)
        return float(trained) / self._job.settings.batch

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial, from scratch."""
        self._algorithm.stop()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        self._algorithm.stop()
