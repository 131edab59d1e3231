"""The sweep file: one YAML file that says everything about a sweep, checked before anything starts."""

import difflib
import hashlib
import itertools
import json
import types
import typing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.catalog import find_model
from vlm_rm_sweeps.rewards.clip import check_prompts
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardSpec
from vlm_rm_sweeps.tasks.task import Task, get_task
from vlm_rm_sweeps.training.settings import BestBy, DqnSettings

TRUE_REWARD = "true reward"
"""Stands in the place of the model id of a trial that learns from the environment's own reward."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prompt(_Strict):
    """One wording of the task. `goal` and `baseline` are a sentence, or a list of sentences that are averaged."""

    id: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$", description="Short name, shown in tables and used as a tag.")
    goal: tuple[str, ...]
    baseline: tuple[str, ...]

    @field_validator("goal", "baseline", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _can_be_scored(self) -> "Prompt":
        self.spec(alpha=0.0)
        return self

    def spec(self, alpha: float) -> RewardSpec:
        return RewardSpec(self.goal, self.baseline, alpha)


class PoolSettings(_Strict):
    """How each model is served."""

    servers: int = Field(1, ge=1, description="Reward servers for each model.")
    precision: Precision = "fp32"
    micro_batch: int = Field(64, ge=1, description="Frames in one forward pass.")
    cpus: float = Field(0, ge=0, description="CPUs that Ray reserves for each server.")
    gpus: float = Field(0, ge=0, description="GPUs, or a fraction of one, for each server.")
    threads: int = Field(1, ge=1, description="Threads that each server uses.")
    timeout_s: float = Field(600, gt=0, description="Seconds after which a server that has not answered is taken for hung.")


class TrialResources(_Strict):
    """What each trial reserves."""

    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)
    retries: int = Field(2, ge=0, description="How often a trial that failed is tried again, from its last checkpoint.")


class Sweep(_Strict):
    """A sweep: each combination of model, alpha, prompt and seed is a trial."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,60}$", description="Names the results folder and the MLflow experiment.")
    task: str
    models: tuple[str, ...] = Field(min_length=1)
    alphas: tuple[float, ...] = Field(min_length=1)
    prompts: tuple[Prompt, ...] = Field((), description="Wordings to compare; the task's own if there are none.")
    seeds: tuple[NonNegativeInt, ...] = Field((0,), min_length=1)
    true_reward: bool = Field(True, description="Add, for each seed, a trial that learns from the true reward.")
    algorithm: Literal["dqn"] = "dqn"
    steps: int = Field(gt=0, description="Environment steps of each trial.")
    steps_per_result: int = Field(1_000, gt=0, description="Environment steps between two logged results.")
    settings: DqnSettings = DqnSettings()
    evaluation_episodes: int = Field(20, gt=0, description="Episodes with the greedy policy at the end of each trial.")
    checkpoint_every: int = Field(5_000, gt=0, description="Environment steps between two checkpoints of a trial.")
    best_by: BestBy = Field("success", description="What each trial's best policy is chosen by, within the trial.")
    videos: bool = Field(True, description="Record an episode of each trial's best policy.")
    pool: PoolSettings = PoolSettings()
    trial: TrialResources = TrialResources()
    max_trials: int = Field(100, gt=0, description="Refuse to start more trials than this.")

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str) -> str:
        return get_task(name).name

    @field_validator("models")
    @classmethod
    def _known_models(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        for model_id in models:
            find_model(model_id)
        return models

    @field_validator("alphas")
    @classmethod
    def _alphas_in_range(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        for alpha in alphas:
            if not 0 <= alpha <= 1:
                raise UserError(f"{alpha:g} is not a strength: expected numbers from 0 (cosine to the goal) to 1")
        return alphas

    @model_validator(mode="after")
    def _whole(self) -> "Sweep":
        for axis in ("models", "alphas", "seeds"):
            _refuse_repeats(axis, list(getattr(self, axis)))
        _refuse_repeats("prompts", [prompt.id for prompt in self.prompts])
        count = len(self.trials())
        if count > self.max_trials:
            raise UserError(
                f"the grid has {count} trials, more than max_trials = {self.max_trials}: shorten an axis or raise max_trials"
            )
        for model_id in self.models:
            tokenizer = find_model(model_id).tokenizer
            for prompt in self.wordings():
                try:
                    check_prompts(prompt.spec(alpha=0.0), tokenizer, model_id)
                except UserError as error:
                    raise UserError(f"prompts, {prompt.id}: {error}") from error
        return self

    def the_task(self) -> Task:
        return get_task(self.task)

    def wordings(self) -> tuple[Prompt, ...]:
        """The prompts to compare: those of the file, else the task's own."""
        task = self.the_task()
        return self.prompts or (Prompt(id="task", goal=(task.goal_prompt,), baseline=(task.baseline_prompt,)),)

    def trials(self) -> list["Trial"]:
        """All trials, in a fixed order, the reference ones with the true reward first."""
        references: list[tuple[str, float, Prompt | None, int]] = []
        if self.true_reward:
            references = [(TRUE_REWARD, 0.0, None, seed) for seed in self.seeds]
        grid = itertools.product(self.models, self.alphas, self.wordings(), self.seeds)
        return [Trial.of(*combination) for combination in [*references, *grid]]


def _refuse_repeats(axis: str, values: list[Any]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"{axis}: {value!r} stands there {values.count(value)} times: expected each value once")


@dataclass(frozen=True)
class Trial:
    """One combination. `trial_id` is stable: it depends on what is learned from, not on the place in the grid."""

    trial_id: str
    model_id: str
    alpha: float
    prompt: Prompt | None
    seed: int

    @classmethod
    def of(cls, model_id: str, alpha: float, prompt: Prompt | None, seed: int) -> "Trial":
        content = [model_id, alpha, prompt.model_dump(mode="json") if prompt else None, seed]
        return cls(hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10], model_id, alpha, prompt, seed)

    @property
    def prompt_id(self) -> str:
        return self.prompt.id if self.prompt else "-"

    @property
    def label(self) -> str:
        """What people read."""
        if self.prompt is None:
            return f"{TRUE_REWARD}, seed {self.seed}"
        return f"{self.model_id}, alpha {self.alpha:g}, prompt {self.prompt.id}, seed {self.seed}"

    def spec(self) -> RewardSpec | None:
        """What the reward model is asked for; None for the true reward."""
        return self.prompt.spec(self.alpha) if self.prompt else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for Tune."""
        return asdict(self) | {"prompt": self.prompt.model_dump(mode="json") if self.prompt else None}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Trial":
        return cls(**(data | {"prompt": Prompt(**data["prompt"]) if data["prompt"] else None}))


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, which would let the last of two equal keys win, without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(
                    f"key {key!r} stands there {keys.count(key)} times: expected each key once{node.start_mark}"
                )
        return super().construct_mapping(node, deep)


def load_sweep(path: Path) -> Sweep:
    """Read and check a sweep file.

    Raises UserError with one message that names the file and, for each thing that is wrong, the key, its value, what was
    expected and the nearest valid name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a text file in UTF-8: {error}") from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a sweep file, such as sweeps/quickstart.yaml"
        ) from error
    try:
        data = yaml.load(text, _StrictLoader)
    # ValueError: what looks like a date and is none.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected keys such as `name`, `task` and `models`, found {type(data).__name__}")
    try:
        return Sweep.model_validate(data)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors(include_url=False)]
        raise UserError(f"{path}: " + "; ".join(problems)) from error


def _explain(problem: ErrorDetails) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = list(_fields_at(problem["loc"][:-1]))
        nearest = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
        return f"unknown key {key!r} (value {problem['input']!r}): {suggestion}expected one of {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{key!r} is missing"
    message = "expected a list" if problem["type"] == "tuple_type" else problem["msg"].removeprefix("Value error, ")
    if not key:
        return message
    if isinstance(problem["input"], dict):
        return f"{key}: {message}"
    return f"{key} = {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _fields_at(location: tuple[int | str, ...]) -> typing.Iterable[str]:
    """The keys that are allowed at a place of the sweep file."""
    model: Any = Sweep
    for part in location:
        if isinstance(part, str):
            model = model.model_fields[part].annotation
        if isinstance(model, types.GenericAlias):
            model = typing.get_args(model)[0]
    fields: dict[str, Any] = model.model_fields
    return fields


def describe_plan(sweep: Sweep) -> str:
    """What a sweep will run and take, for `--dry-run`. Starts nothing and loads no weights."""
    trials, pool = sweep.trials(), sweep.pool
    lines = [f"{len(trials)} trials of {sweep.steps:,} environment steps, {len(trials) * sweep.steps:,} in all:"]
    lines += [f"  {trial.trial_id}  {trial.label}" for trial in trials]
    lines.append(f"each trial reserves {sweep.trial.cpus:g} CPUs and {sweep.trial.gpus:g} GPUs; beside them run")
    bytes_each = 4 if pool.precision == "fp32" else 2
    for model_id in sweep.models:
        parameters = find_model(model_id).parameters
        lines.append(
            f"  {pool.servers} reward server(s) of {model_id}: {parameters / 1e6:.2f} M parameters, "
            f"{parameters * bytes_each / 1e6:.0f} MB of weights in {pool.precision}, {pool.cpus:g} CPUs and {pool.gpus:g} GPUs each"
        )
    return "\n".join(lines)
