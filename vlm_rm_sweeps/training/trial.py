"""One trial of a sweep as a Tune trainable: train, evaluate at the end, checkpoint.

A separate trainable keeps results small: passed to Tune directly, RLlib's algorithm reports 480 values each time.

A trial resumes from the newest checkpoint in its folder, whether Tune restarts it after its process died or a sweep is resumed.
A checkpoint is written when Tune requests the *next* result: by then the driver has recorded all previous ones, so a resumed
trial neither loses nor skips any. Where a population is compared, it is written before the result is reported, because the trial
is paused then, and reports that result again when it goes on.

An error that recurs at the same step is caused by the trial, not by the machine: the trial then ends, with the error in its
last result. All others (those that Ray raises, unavailable reward servers, a full disk) are left to Tune, which retries a trial
as often as the sweep file allows. A node that lacks what a trial needs, or that dies, does not count.
"""

import math
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
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
    COMPARED,
    ENCODE_SECONDS,
    ENV_STEPS,
    EVALUATION,
    FAILURE,
    FINISHED,
    FRAMES_SCORED,
    GOAL_FRACTION,
    ITERATION_SECONDS,
    MICRO_BATCH,
    NOTE,
    REACHED,
    REMARKS,
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
    BestBy,
)
from vlm_rm_sweeps.rewards.functions.registry import describe_reward
from vlm_rm_sweeps.rewards.registry import NEWEST_EMBEDDED, with_version
from vlm_rm_sweeps.serving.nodes import InCommon
from vlm_rm_sweeps.serving.pool import PoolUnavailable
from vlm_rm_sweeps.serving.ray_internals import show_work
from vlm_rm_sweeps.serving.telemetry import TrialMetrics
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.tasks.gym_task import GymEnv
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.algorithms.base import Algorithm
from vlm_rm_sweeps.training.algorithms.registry import algorithm_name
from vlm_rm_sweeps.training.audit import AuditPlan
from vlm_rm_sweeps.training.checkpoints import (
    KEPT_FOR_OTHERS,
    BestContent,
    Checkpoint,
    JobContent,
    PolicyContent,
    RewardContent,
    TrialFolder,
    TrialResult,
)
from vlm_rm_sweeps.training.connectors.reward import RewardSource
from vlm_rm_sweeps.training.env_runners import CPUS_PER_ENV_RUNNER
from vlm_rm_sweeps.training.resumption import get_training_state, set_training_state, take_over_training_state
from vlm_rm_sweeps.training.rllib_internals import environment_error
from vlm_rm_sweeps.training.stopwatch import Stopwatch
from vlm_rm_sweeps.training.trainer import build_trainer
from vlm_rm_sweeps.training.trial_audit import TrialAudit
from vlm_rm_sweeps.training.trial_placement import TrialPlacement

_AUDIT = "audit"


@dataclass(frozen=True)
class Takeover:
    """Another trial's training, with which a trial goes on.

    Args:
        folder: Folder of the other trial's checkpoints, or its address.
        step: Environment steps of the checkpoint to go on from.
    """

    folder: Path | RemoteFolder
    step: int


@dataclass(frozen=True)
class TrainingJob:
    """Job description of one trial, as plain data.

    Args:
        task: The task to learn.
        settings: The algorithm with its settings.
        reward: Source of the rewards; None for the environment's own.
        seed: Seed of everything random.
        steps: Environment steps to train for. With 0, the untrained policy is evaluated.
        steps_per_result: Least number of environment steps between two results.
        evaluation_episodes: Number of episodes of the greedy policy at the end.
        folder: Folder of the trial's checkpoints, or its address; then each machine has a copy.
        checkpoint_every: Approximate number of environment steps between two checkpoints. The last result has one, too.
        best_by: Metric by which each result's policy is compared with the best one so far.
        env: The sweep file's `env:` section, from which `task` was made; None for a registered task.
        audit: Configuration of an audit, which needs a `reward`; None for no audit.
        rendering: How states are rendered, for people, if there is no `reward`; None for the task's default.
        env_runners: Number of remote env runners; 0 if the trial's own process samples.
        evaluation_interval: Environment steps between two evaluations of the greedy policy, by which then the best policy is
            chosen; None for one evaluation, at the end, while the best policy is chosen by training episodes.
        goals: Least values, by metric, of which the greedy policy must reach one for the trial to end early, in order.
        in_common: What the machine of the trial must have in common with the driver's; None where there is no other.
        label: What people call the trial.
        compared_every: Environment steps between two results at which a population is compared: each has a checkpoint, so that the
            trial can be paused there, and another one can go on from it; None if the trial is in no population.
        takeover: The training that the trial goes on with, by these settings, unless its own is further; None for its own.
        learns_on_gpu: Whether updates are computed on the GPU that the trial reserves.
    """

    task: Task
    settings: Algorithm
    reward: RewardSource | None
    seed: int
    steps: int
    steps_per_result: int
    evaluation_episodes: int
    folder: Path | RemoteFolder
    checkpoint_every: int
    best_by: BestBy = "success"
    env: GymEnv | None = None
    audit: AuditPlan | None = None
    rendering: Rendering | None = None
    env_runners: int = 0
    evaluation_interval: int | None = None
    goals: Mapping[str, float] = field(default_factory=dict)
    in_common: InCommon | None = None
    label: str = ""
    compared_every: int | None = None
    takeover: Takeover | None = None
    learns_on_gpu: bool = False

    def description(self) -> JobContent:
        """Return the job's description for its checkpoints."""
        rendering = (self.reward.rendering if self.reward else self.rendering) or self.task.rendering()
        return {
            "task": self.task.name,
            "env": self.env.model_dump(mode="json") if self.env else None,
            "rendering": {"textures": rendering.textures, "camera": rendering.camera, "profile": rendering.profile},
            "control": self.task.control.model_dump(mode="json"),
            "algorithm": algorithm_name(type(self.settings)),
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "reward": _describe_reward(self.reward) if self.reward else None,
        }


def _describe_reward(reward: RewardSource) -> RewardContent:
    described: RewardContent = {
        "model": with_version(reward.pool.model_id, NEWEST_EMBEDDED),
        "precision": reward.pool.precision,
        "micro_batch": reward.pool.micro_batch,
        "goal": list(reward.spec.goal_prompts),
        "baseline": list(reward.spec.baseline_prompts),
        "alpha": reward.spec.alpha,
    }
    if reward.spec.function is not None:
        described["function"] = describe_reward(reward.spec.function)
    if reward.label is not None:
        described["label"] = reward.label
    return described


def _cause(error: BaseException) -> BaseException:
    """Return the original error, in whatever process it was raised."""
    while isinstance(error, RayTaskError):
        error = error.cause
    return environment_error(error)


class TrainableTrial(tune.Trainable):
    """Tune trainable of one trial.

    Its `config["run"]` contains `job`, a TrainingJob, and `resources`, which Tune reserves for the trial's own process, such as
    `{"CPU": 1, "GPU": 0}`.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Request the resources of the trial's own process, and a CPU for each remote env runner."""
        env_runners = [{"CPU": float(CPUS_PER_ENV_RUNNER)}] * config["run"]["job"].env_runners
        return TrialPlacement([config["run"]["resources"], *env_runners])

    def setup(self, config: dict[str, Any]) -> None:
        """Build the trainer, and resume from the newest checkpoint if there is one.

        Errors are left to `step`: of one that is raised here, Tune would learn no more than that the process died.

        Args:
            config: The trial's `run`, see the class.
        """
        # Trials share the machine with each other and with the reward servers.
        torch.set_num_threads(1)
        self._job: TrainingJob = config["run"]["job"]
        self._folder = TrialFolder(self._job.folder)
        self._trainer: Any = None
        self._notes: list[str] = []
        self._remarks: list[str] = []
        self._env_steps = self._saved_at = 0
        self._done = False
        self._is_repeated = False
        self._results: list[TrialResult] = []
        self._set_up_error: Exception | None = None
        try:
            self._set_up()
        except Exception as error:  # an environment may raise anything
            self._set_up_error = error

    def _set_up(self) -> None:
        if self._job.in_common is not None:
            self._job.in_common.check_here()
        self._trainer = self._build_trainer()
        self._ray_metrics = TrialMetrics(self._job.folder.name, self._job.label)
        self._updates_before = 0.0
        self._stopwatches = self._start_stopwatches()
        self._least_micro_batch: float = self._job.reward.pool.micro_batch if self._job.reward else 0
        self._audit: TrialAudit | None = None
        if self._job.audit is not None and self._job.reward is not None:
            self._audit = TrialAudit(self._trainer, self._job.audit, self._job.reward.spec, self._job.seed)
        self._restore()
        best = self._folder.best()
        self._best = self._merit(best.content["metrics"]) if best else (-math.inf, -math.inf)

    def _build_trainer(self) -> Any:
        job = self._job
        if job.env_runners:
            # Of an environment that cannot be made in another process, RLlib says no more than that the process died.
            job.task.make_env(
                job.reward.frame_format if job.reward else None, job.reward.rendering if job.reward else None
            ).close()
        return build_trainer(
            job.settings,
            job.task,
            job.reward,
            job.seed,
            job.steps_per_result,
            job.evaluation_episodes,
            job.env_runners,
            job.learns_on_gpu,
        )

    def _start_stopwatches(self) -> dict[str, Stopwatch]:
        """Time sampling, updates and replay: RLlib's timers are moving averages for one call, these sum up each iteration."""
        trainer = self._trainer
        sampling = (trainer.env_runner_group, "foreach_env_runner") if self._job.env_runners else (trainer.env_runner, "sample")
        stopwatches = {SAMPLING_SECONDS: Stopwatch(*sampling), UPDATE_SECONDS: Stopwatch(trainer.learner_group, "update")}
        if trainer.local_replay_buffer is not None:
            stopwatches[REPLAY_SECONDS] = Stopwatch(trainer.local_replay_buffer, "gather")
        return stopwatches

    def _restore(self) -> None:
        own, problems = self._folder.last()
        self._notes += [f"a checkpoint is not used: {problem}" for problem in problems]
        if own is not None:
            self._results, self._done = own.content["results"], own.content["done"]
        takeover = self._job.takeover
        is_taken_over = takeover is not None and (own is None or own.env_steps <= takeover.step)
        checkpoint = self._other_training(takeover) if takeover is not None and is_taken_over else own
        if checkpoint is None:
            return
        if not is_taken_over:
            self._refuse_other_settings(checkpoint)
        state = checkpoint.training_state()
        restore = take_over_training_state if is_taken_over else set_training_state
        restore(self._trainer, self._job.settings, state)
        if self._audit is not None:
            self._audit.set_state(state[_AUDIT])
        self._env_steps = self._saved_at = checkpoint.env_steps
        self._updates_before = float(checkpoint.content["results"][-1].get(UPDATES, 0.0))  # an untrained policy has none
        # There the trial was paused, or its process may have died before the result was reported.
        self._is_repeated = self._env_steps in self._compared_steps()
        if not self._is_repeated:
            self._notes.append(f"resumed from step {checkpoint.env_steps:,}")

    def _refuse_other_settings(self, checkpoint: Checkpoint) -> None:
        """Refuse to go on with settings of which nobody knows where they come from: the journal has lost a takeover."""
        if self._job.compared_every is None:
            return
        stored, now = checkpoint.content["settings"], self._job.description()["settings"]
        name = next((name for name in type(self._job.settings).changeable if stored.get(name) != now[name]), None)
        if name is not None:
            raise UserError(
                f"{checkpoint.folder} was trained with {name} = {stored.get(name)}, and the journal says {now[name]}: it has lost a "
                "takeover; restore journal.jsonl"
            )

    @staticmethod
    def _other_training(takeover: Takeover) -> Checkpoint:
        """Return the checkpoint of another trial to go on from."""
        try:
            return TrialFolder(takeover.folder).of_step(takeover.step)
        except UserError as error:
            raise UserError(f"the training of trial {takeover.folder.name} cannot be taken over: {error}") from error

    def _compared_steps(self) -> list[int]:
        """Return the steps of the results at which the trial was compared with its population."""
        every = self._job.compared_every
        if every is None:
            return []
        steps = [0, *(int(result[ENV_STEPS]) for result in self._results)]
        return [now for before, now in pairwise(steps) if now // every > before // every and now < self._job.steps]

    def step(self) -> dict[str, Any]:
        """Train until the next result.

        Returns:
            The result for Tune; the last one says that the trial has finished. If it has failed for good, it is only the error
            message.
        """
        show_work(f"{self._job.folder.name} ({self._job.label}) on {socket.gethostname()}")
        if not self._done:  # else its process died after the last checkpoint, before reporting
            try:
                if self._set_up_error is not None:
                    raise self._set_up_error
                if not self._is_repeated:
                    self._go_on()
            except Exception as error:
                if self._is_final(_cause(error)):
                    return {"done": True, FAILURE: reason_of(_cause(error))}
                raise
        self._is_repeated = False
        notes, self._notes = self._notes, []
        remarks, self._remarks = self._remarks, []
        said: dict[str, Any] = ({FINISHED: True} if self._done else {}) | ({NOTE: "; ".join(notes)} if notes else {})
        said |= {REMARKS: remarks} if remarks else {}
        if self._env_steps < self._job.steps and (reached := self._reached(self._results[-1])):
            said[REACHED] = reached
        if not self._done and self._env_steps in self._compared_steps()[-1:]:
            said[COMPARED] = True
        return self._results[-1] | {"done": self._done} | said

    def _go_on(self) -> None:
        """Train until the next result, with the checkpoints that are due before and after it.

        Raises:
            OSError: A checkpoint cannot be written that others rely on.
        """
        if self._env_steps - self._saved_at >= self._job.checkpoint_every:
            self._save()
        self._results.append(self._train() if self._job.steps else self._stay_untrained())
        if self._done and not self._save():
            # If it is retried, it resumes from the previous checkpoint; a finished trial would never get its last one.
            raise OSError(f"the last checkpoint could not be written: {self._notes[-1]}")
        if not self._done and self._env_steps in self._compared_steps()[-1:] and not self._save():
            raise OSError(f"the checkpoint at which the population is compared could not be written: {self._notes[-1]}")

    def _reached(self, metrics: Mapping[str, float | None]) -> str | None:
        """Return the goal that the greedy policy has reached, in words; None if it reached none, or was not evaluated."""
        for name, least in self._job.goals.items():
            value = metrics.get(EVALUATION + name)
            if value is not None and value >= least:
                return f"{name} {value:.4g} reached {least:g} at step {self._env_steps:,}"
        return None

    def _is_final(self, error: BaseException) -> bool:
        """Return whether an error would recur: it is a UserError, or it recurred already and the machine is not the cause."""
        if isinstance(error, UserError):
            return True
        of_the_machine = isinstance(error, RayError | PoolUnavailable | OSError)
        return not of_the_machine and self._folder.fails_again(self._env_steps, reason_of(error))

    def _train(self) -> TrialResult:
        started = time.perf_counter()
        result = self._trainer.train()
        seconds = time.perf_counter() - started
        before, self._env_steps = self._env_steps, int(result["num_env_steps_sampled_lifetime"])
        metrics = self._training_metrics(result, seconds)
        interval = self._job.evaluation_interval
        if interval is None:
            self._keep_if_best(metrics)
        self._done = self._env_steps >= self._job.steps
        if self._audit is not None and (self._done or self._audit.due(self._env_steps)):
            metrics |= self._audit.point(self._env_steps)
            self._remarks += self._audit.take_remarks()
        if self._done or (interval is not None and self._env_steps // interval > before // interval):
            evaluated = self._evaluate()
            metrics |= evaluated
            if interval is not None:
                self._keep_if_best({name.removeprefix(EVALUATION): value for name, value in evaluated.items()})
            self._done = self._done or self._reached(evaluated) is not None
        return self._as_result(metrics)

    def _training_metrics(self, result: dict[str, Any], seconds: float) -> dict[str, float | None]:
        """Compute the metrics of one call of RLlib's `train` from its result."""
        runner, sampled = result["env_runners"], int(result["env_runners"]["num_env_steps_sampled"])
        self._ray_metrics.sampled(sampled)
        updates_before, self._updates_before = self._updates_before, self._updates(result)
        timed = {name: runner.get(name) for name in (RENDER_SECONDS, ENCODE_SECONDS, WAIT_SECONDS, FRAMES_SCORED)}
        laps = {name: stopwatch.lap() for name, stopwatch in self._stopwatches.items()}
        return (
            self._returns(runner)
            | timed
            | laps
            | {
                STEPS_PER_SECOND: sampled / seconds,
                UPDATES: self._updates_before,
                # It differs from the setting by rounding: a rollout is followed by a whole number of updates, which may be 0.
                UPDATES_PER_STEP: (self._updates_before - updates_before) / sampled,
                MICRO_BATCH: self._micro_batch(runner),
                ITERATION_SECONDS: seconds,
            }
        )

    def _stay_untrained(self) -> TrialResult:
        self._done = True
        return self._as_result(self._evaluate())

    def _evaluate(self) -> dict[str, float | None]:
        evaluated = self._returns(self._trainer.evaluate()["env_runners"])
        return {EVALUATION + name: value for name, value in evaluated.items()}

    def _as_result(self, metrics: dict[str, float | None]) -> TrialResult:
        finite = {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}
        return finite | {ENV_STEPS: self._env_steps, TIME_MS: int(time.time() * 1000)}

    def _merit(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        """Return the values by which policies are compared: the chosen metric, then, for ties, the true return."""
        return metrics[self._job.best_by], metrics[TRUE_RETURN]

    def _keep_if_best(self, metrics: Mapping[str, float | None]) -> None:
        values = {name: metrics.get(name) for name in (self._job.best_by, TRUE_RETURN)}
        compared = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        if len(compared) < len(values) or self._merit(compared) < self._best:
            return
        greedy = self._job.evaluation_interval is not None
        content: BestContent = {**self._policy_content(), "metrics": compared, "greedy": greedy}
        if self._write(lambda: self._folder.save_best(self._policy, content)):
            self._best = self._merit(compared)

    def _save(self) -> bool:
        """Write a checkpoint to resume from, and return whether that succeeded."""
        written = self._write(
            lambda: self._folder.save(
                self._policy,
                self._training_state(),
                {**self._policy_content(), "results": self._results, "done": self._done},
                # Whoever goes on from one of them has a checkpoint of its own before two newer ones are there.
                also_kept=self._compared_steps()[-KEPT_FOR_OTHERS:],
            )
        )
        self._saved_at = self._env_steps
        return written

    def _training_state(self) -> dict[str, Any]:
        audited = {_AUDIT: self._audit.get_state()} if self._audit is not None else {}
        return get_training_state(self._trainer, self._job.settings) | audited

    @property
    def _policy(self) -> RLModule:
        policy: RLModule = self._trainer.env_runner.module
        return policy

    def _policy_content(self) -> PolicyContent:
        network: Any = self._policy.model_config
        return {**self._job.description(), "env_steps": self._env_steps, "model_config": dict(network)}

    def _write(self, save: Callable[[], Any]) -> bool:
        try:
            save()
        except OSError as error:
            # A full disk must not end a trial that can continue: the previous checkpoint is still there.
            self._notes.append(f"no checkpoint at step {self._env_steps:,}: {error}")
            return False
        return True

    def _returns(self, runner: dict[str, Any]) -> dict[str, float | None]:
        """Return CLIP and true return under their own names: RLlib's return is that of the training reward."""
        returns = {name: runner.get(name) for name in (TRUE_RETURN, SUCCESS, GOAL_FRACTION)}
        if self._job.reward is not None:
            returns[CLIP_RETURN] = runner.get("episode_return_mean")
        return returns

    def _micro_batch(self, runner: dict[str, Any]) -> float | None:
        used: float | None = runner.get(MICRO_BATCH)
        if self._job.reward is not None and used is not None and used < self._least_micro_batch:
            self._least_micro_batch = used
            self._notes.append(
                f"a reward server ran out of memory and continues with micro-batches of {used:g}: from here on rewards may differ in "
                "their last bits from those of an undisturbed trial"
            )
        return used

    def _updates(self, result: dict[str, Any]) -> float:
        trained = result.get("learners", {}).get(ALL_MODULES, {}).get("num_module_steps_trained_lifetime", 0)
        return float(trained) / self._job.settings.update_size

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Stop the trainer and set up another trial in this process."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Stop the trainer and its env runners."""
        if self._trainer is not None:
            self._trainer.stop()
