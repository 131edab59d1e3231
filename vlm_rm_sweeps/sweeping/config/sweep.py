"""The sweep file: one YAML file that describes a whole sweep.

This is the schema only. Reading a file touches neither models nor environments, so a finished sweep can be read on any machine;
`plan.py` looks up what the file names.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import BestBy
from vlm_rm_sweeps.rewards.between import Between
from vlm_rm_sweeps.rewards.functions.registry import KIND
from vlm_rm_sweeps.rewards.registry import NEWEST_EMBEDDED, EmbeddedVersion
from vlm_rm_sweeps.sweeping.config.population import check_population
from vlm_rm_sweeps.sweeping.config.searching import SearchSettings, check_searched
from vlm_rm_sweeps.sweeping.config.sections import (
    LARGEST,
    AuditSettings,
    Combination,
    LabelledStates,
    PoolSettings,
    Prompt,
    RewardSettings,
    Section,
    TrialResources,
    check_alphas,
)
from vlm_rm_sweeps.sweeping.config.stopping import SchedulerKind, SchedulerSettings, StopSettings, check_stopping
from vlm_rm_sweeps.sweeping.config.validation import check_keys, in_file, refuse_repeats
from vlm_rm_sweeps.sweeping.config.yaml_file import read_sweep_keys
from vlm_rm_sweeps.tasks.control import Control
from vlm_rm_sweeps.tasks.gym_task import GymEnv
from vlm_rm_sweeps.tasks.rendering import Profile

_MOST_STATES = 1_000_000
_NAME = r"^[A-Za-z0-9_-]{1,60}$"


class Sweep(Section):
    """A sweep: each combination of model, reward, prompt, textures, camera and seed is a trial."""

    name: str = Field(
        pattern=_NAME,
        description="Names the results folder and the MLflow experiment; by default as the file, without its ending.",
    )
    task: str | None = Field(None, description="One of `vlm-rm tasks`, or `module:Class`; or else `env`.")
    env: GymEnv | None = Field(None, description="Any Gymnasium environment, in the place of a task; it needs `prompts`.")
    control: Control = Field(Control(), description="How policies act, and what they observe.")
    models: tuple[str, ...] = Field(
        description="Model ids: one of `vlm-rm models`, or `module:Class`; [], without `alphas` and `rewards`, for references alone."
    )
    embedded_version: EmbeddedVersion = Field(
        NEWEST_EMBEDDED,
        description="Version of the embedded family that `embedded/<size>` means; sweeps of version 0.1 go on with v1.",
    )
    alphas: tuple[float, ...] = Field(
        (),
        description="Goal-baseline regularisation, from 0 (cosine to the goal) to 1 (only the direction from baseline to goal counts); "
        "or else `rewards`.",
    )
    rewards: tuple[RewardSettings, ...] = Field(
        (),
        description="Rewards to compare, in the place of `alphas`: each a kind of `vlm-rm rewards`, or `kind` with its parameters.",
    )
    score_every: int = Field(
        1, ge=1, description="Encode the frame of every k-th step of an episode alone, from its first step on."
    )
    score_between: Between = Field(
        "hold",
        description="The rewards of the steps between: the last one, or `interpolate` to the next (the last steps of a rollout hold).",
    )
    prompts: tuple[Prompt, ...] = Field((), description="Prompts to compare; by default the task's own.")
    only: tuple[Combination, ...] = Field((), description="Of the grid, only these combinations; by default all of it.")
    textures: tuple[str, ...] = Field(
        (), description="Textures to compare, such as [modified, original]; by default the task's first."
    )
    cameras: tuple[str, ...] = Field(
        (), description="Cameras to compare, such as [paper, default]; by default the task's first."
    )
    profile: Profile | None = Field(None, description="How much OpenGL draws; by default `fast` without a GPU.")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field((0,), min_length=1, description="Seeds of the trials.")
    true_reward: bool = Field(True, description="Add, for each seed, a trial that learns from the environment's own reward.")
    untrained: bool = Field(False, description="Add, for each seed, the policy as it is before training, evaluated.")
    algorithm: str | None = Field(
        None,
        description="A registered algorithm, or `module:Class`; by default the first registered one that can learn the actions.",
    )
    steps: int = Field(gt=0, description="Environment steps of each trial.")
    steps_per_result: int = Field(1_000, gt=0, description="Environment steps between two logged results.")
    settings: dict[str, Any] = Field({}, description="The algorithm's settings, such as `learning_rate`; see `vlm-rm schema`.")
    evaluation_episodes: int = Field(
        20, gt=0, le=100_000, description="Episodes with the greedy policy at the end of each trial."
    )
    checkpoint_every: int = Field(5_000, gt=0, description="Environment steps between two checkpoints of a trial.")
    best_by: BestBy = Field(
        "success",
        description="What each trial's best policy is chosen by: with exploration, or see `trial.evaluation_interval`.",
    )
    videos: bool = Field(True, description="Record an episode of each trial's best policy.")
    log_checkpoints: Literal["none", "best"] = Field(
        "none",
        description="What MLflow gets of a finished trial's checkpoints: a link alone, or also its best policy, as an artifact.",
    )
    pool: PoolSettings = Field(PoolSettings(), description="How each model is served.")
    trial: TrialResources = Field(TrialResources(), description="What each trial reserves.")
    search: SearchSettings | None = Field(
        None, description="Draw alpha and settings of the algorithm one after another, in the place of a grid of them."
    )
    scheduler: SchedulerSettings | None = Field(
        None,
        description="Stop trials early that do worse than others, or let them go on from others, by one of Tune's schedulers; a kind "
        "alone, or a mapping.",
    )
    stop: StopSettings | None = Field(None, description="End a trial early whose greedy policy is good enough.")
    max_concurrent: int | None = Field(None, gt=0, description="Run no more trials at once, whatever there is room for.")
    time_budget_s: float | None = Field(
        None, gt=0, description="Seconds after which the trials are interrupted, as by Ctrl-C; `--resume` continues."
    )
    wait_for_nodes_s: float = Field(
        0,
        ge=0,
        le=10**7,
        description="Seconds to wait for machines that join a cluster, such as by an autoscaler, until the servers and one trial have "
        "room; 0 refuses at once what has none.",
    )
    epic_states: int | LabelledStates = Field(
        0,
        description="What every model, reward and prompt is measured on by EPIC before training: a number of random states (0: none), "
        "or a labelled data set.",
    )
    audit: AuditSettings | None = Field(
        None,
        description="Score each trial's frames for other specs and models too; the over-optimisation alarm takes five audit points.",
    )
    max_trials: int = Field(100, gt=0, description="Refuse to start more trials than this.")

    @field_validator("rewards", mode="before", json_schema_input_type=tuple[str | RewardSettings, ...])
    @classmethod
    def _kinds_alone(cls, rewards: Any) -> Any:
        return (
            [{KIND: each} if isinstance(each, str) else each for each in rewards]
            if isinstance(rewards, list | tuple)
            else rewards
        )

    @field_validator("scheduler", mode="before", json_schema_input_type=SchedulerKind | SchedulerSettings | None)
    @classmethod
    def _scheduler_alone(cls, scheduler: Any) -> Any:
        return {KIND: scheduler} if isinstance(scheduler, str) else scheduler

    @field_validator("alphas")
    @classmethod
    def _alphas_in_range(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        return check_alphas(alphas)

    @field_validator("epic_states", mode="before")
    @classmethod
    def _enough_states_or_labelled_ones(cls, states: Any) -> Any:
        from vlm_rm_sweeps.evaluation.ground_truth import MIN_STATES  # imports scikit-learn, which takes seconds

        if isinstance(states, dict):
            return check_keys(LabelledStates, states, "epic_states.")
        if not isinstance(states, LabelledStates | int):
            raise UserError("expected a number of random states, or a labelled data set: {states: FOLDER, truth: raters}")
        if isinstance(states, int) and states != 0 and not MIN_STATES <= states <= _MOST_STATES:
            raise UserError(f"expected 0, for none, or {MIN_STATES} to {_MOST_STATES:,}")
        return states

    def count_trials(self) -> int:
        """Count the trials by the text alone, without making them.

        Returns:
            Number of combinations, in each rendering and for each seed, and of references for each seed. Of a search, the number of
            samples for each seed.
        """
        named = {(each.model, each.alpha, each.reward, each.prompt) for each in self.only}
        cells = len(named) or len(self.models) * len(self.alphas or self.rewards) * max(1, len(self.prompts))
        if self.search is not None:
            cells = self.search.samples
        drawn = max(1, len(self.textures)) * max(1, len(self.cameras))
        return len(self.seeds) * (cells * drawn + self.true_reward + self.untrained)

    @model_validator(mode="after")
    def _consistent(self) -> "Sweep":
        if (self.task is None) == (self.env is None):
            found = "neither" if self.env is None else "both"
            raise UserError(f"expected either `task`, the name of a task, or `env`, a Gymnasium environment, found {found}")
        for axis in ("models", "alphas", "textures", "cameras", "seeds"):
            refuse_repeats(axis, getattr(self, axis))
        refuse_repeats("prompts", [prompt.id for prompt in self.prompts])
        if self.audit is not None:
            for axis in ("alphas", "prompts", "models"):
                refuse_repeats(f"audit.{axis}", getattr(self.audit, axis))
        self._check_references_alone()
        interval, is_measured = self.trial.evaluation_interval, bool(self.epic_states)
        check_stopping(self.scheduler, self.stop, self.steps, self.steps_per_result, interval, is_measured)
        if self.search is not None:
            axes = {
                axis: len(getattr(self, axis)) for axis in ("models", "alphas", "rewards", "prompts", "textures", "cameras")
            }
            check_searched(self.search, axes, self.settings, bool(self.only), is_measured)
        if self.scheduler is not None and self.scheduler.kind == "pbt" and interval is not None:
            check_population(self.scheduler, self.search, self.steps, interval)
        if self.env is not None and not self.prompts:
            raise UserError("prompts: missing, and an `env` has none of its own: expected a list of id, goal and baseline")
        return self

    def _check_references_alone(self) -> None:
        """Refuse a grid without models or rewards, unless it has neither, and all that is left is what the references need."""
        if self.alphas and self.rewards:
            raise UserError(
                "expected either `alphas` or `rewards`, found both: alpha 0.5 among `rewards` is {kind: goal_baseline, alpha: 0.5}"
            )
        draws_alpha = self.search is not None and self.search.draws_alpha
        if bool(self.models) != bool(self.alphas or self.rewards or draws_alpha):
            raise UserError(
                f"models = {list(self.models)}, alphas = {list(self.alphas)}, {len(self.rewards)} rewards: expected at least 1 model, "
                "and either alphas or rewards; or none of all for the references alone (`true_reward`, `untrained`)"
            )
        if self.models:
            return
        if not (self.true_reward or self.untrained):
            raise UserError("no models, and neither `true_reward` nor `untrained`: expected at least one trial")
        if self.epic_states or self.audit is not None:
            raise UserError("no models that `epic_states` or `audit` could measure: expected neither, or at least one model")

    @property
    def compared_every(self) -> int | None:
        """Environment steps between two comparisons of a population; None without population-based training."""
        if self.scheduler is None or self.scheduler.kind != "pbt" or self.trial.evaluation_interval is None:
            return None
        return self.scheduler.interval(self.steps, self.trial.evaluation_interval)

    @property
    def task_name(self) -> str:
        """The name of the task, or the id of the environment."""
        return self.task or (self.env.id if self.env else "")

    @property
    def all_models(self) -> tuple[str, ...]:
        """The models that trials learn from, then the gold models that only judge."""
        gold = self.audit.models if self.audit else ()
        return tuple(dict.fromkeys([*self.models, *(each for each in gold if each != LARGEST)]))

    def described_epic_states(self) -> str:
        """Describe the states of `epic_states` in words."""
        if isinstance(self.epic_states, LabelledStates):
            return f"the labelled states in {self.epic_states.states} (truth: {self.epic_states.truth})"
        return f"{self.epic_states:,} random states"


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file without looking up anything that it names.

    Args:
        path: The YAML file.
        overrides: Changes such as `alphas=[0, 0.5]` or `trial.cpus=2`, applied before validation.

    Returns:
        The validated sweep.

    Raises:
        UserError: One message that names the file and, for each bad key, its value, what was expected and the nearest valid
            name.
    """
    data = read_sweep_keys(path, overrides)
    try:
        return check_keys(Sweep, with_name(path, data))
    except UserError as error:
        raise in_file(path, error) from error


def with_name(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Name a sweep as its file, if it has no name of its own and the file's can be one.

    Args:
        path: The sweep file.
        data: Its keys.

    Returns:
        The keys with `name`.
    """
    return {"name": path.stem, **data} if re.match(_NAME, path.stem) else data
