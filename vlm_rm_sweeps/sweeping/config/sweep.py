"""The sweep file: one YAML file that says everything about a sweep, checked before anything starts."""

import difflib
import hashlib
import itertools
import json
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from vlm_rm_sweeps.errors import UserError, unknown_name
from vlm_rm_sweeps.evaluation.state_spaces import state_space
from vlm_rm_sweeps.rewards.clip import check_prompts
from vlm_rm_sweeps.rewards.open_clip_models import find_model
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardSpec
from vlm_rm_sweeps.sweeping.config.yaml_file import read_sweep_keys
from vlm_rm_sweeps.tasks.gym_task import GymEnv
from vlm_rm_sweeps.tasks.rendering import Profile, Rendering, machine_profile
from vlm_rm_sweeps.tasks.task import Task, get_task
from vlm_rm_sweeps.training.settings import ALGORITHMS, AlgorithmName, AlgorithmSettings, BestBy, DqnSettings

TRUE_REWARD = "true reward"
"""Stands in the place of the model id of a trial that learns from the environment's own reward."""
UNTRAINED = "untrained"
"""Stands there of a trial that learns nothing: what a policy with random weights reaches by chance."""
LARGEST = "largest"
"""Stands in an audit for the largest of the sweep's models."""
_AUDIT_POINTS = 10
"""Of a trial, by default."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prompt(_Strict):
    """One wording of the task. `goal` and `baseline` are a sentence, or a list of sentences that are averaged."""

    id: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$", description="Short name, shown in tables and used as a tag.")
    goal: tuple[str, ...] = Field(description="What the goal looks like: a sentence, or a list whose embeddings are averaged.")
    baseline: tuple[str, ...] = Field(description="What is to be seen in any state, with or without the goal.")

    @field_validator("goal", "baseline", mode="before", json_schema_input_type=str | tuple[str, ...])
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
    precision: Precision = Field("fp32", description="Number format in which the model computes.")
    micro_batch: int = Field(64, ge=1, description="Frames in one forward pass.")
    cpus: float = Field(0, ge=0, description="CPUs that Ray reserves for each server.")
    gpus: float = Field(0, ge=0, description="GPUs, or a fraction of one, for each server.")
    threads: int = Field(1, ge=1, description="Threads that each server uses.")
    timeout_s: float = Field(600, gt=0, description="Seconds after which a server that has not answered is taken for hung.")


class TrialResources(_Strict):
    """What each trial reserves."""

    cpus: float = Field(1, gt=0, description="CPUs that each trial reserves.")
    gpus: float = Field(0, ge=0, description="GPUs, or a fraction of one, for each trial.")
    retries: int = Field(
        2,
        ge=0,
        description="How often a trial that failed is tried again, from its last checkpoint. The same error at the same step ends it.",
    )


def _name_or_list(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"const": LARGEST}, {part: schema.pop(part) for part in ("type", "items")}]


class AuditSettings(_Strict):
    """What else every trial's frames are scored for, to see whether its reward is over-optimised."""

    # The sweep fills in what is missing.
    model_config = ConfigDict(json_schema_extra={"required": []})

    alphas: tuple[float, ...] = Field((), description="Other alphas; by default the trial's own.")
    prompts: tuple[str, ...] = Field((), description="Ids of other prompts of the sweep; by default the trial's own.")
    models: tuple[str, ...] = Field(
        (),
        json_schema_extra=_name_or_list,
        description="Gold models, which score for the trial's own spec; `largest` stands for the largest of the sweep's models.",
    )
    every: int = Field(
        gt=0,
        description="Environment steps between two audit points, rounded up to results; by default a tenth of the trial's. Fewer than "
        "those of `envs` whole episodes show a part of them, another at each point.",
    )
    frames: int = Field(500, ge=10, description="Frames of each interval, drawn at random, that the gold models score.")

    @field_validator("alphas")
    @classmethod
    def _alphas_in_range(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        return _strengths(alphas)

    @field_validator("models")
    @classmethod
    def _known_models(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        return _models_that_exist(models)


class LabelledStates(_Strict):
    """A data set of states, and what rewards are measured against on it."""

    states: Path = Field(description="Folder of a labelled data set of states, as `vlm-rm states` makes it.")
    truth: str = Field("success", description="`success`, `rater:NAME`, `raters` or a formula, as in `vlm-rm epic --truth`.")


class Combination(_Strict):
    """A model, an alpha and the id of a prompt: one cell of the grid."""

    model: str = Field(description="One of `models`.")
    alpha: float = Field(description="One of `alphas`.")
    prompt: str = Field(description="Id of one of `prompts`.")


class Sweep(_Strict):
    """A sweep: each combination of model, alpha, prompt, textures, camera and seed is a trial."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,60}$", description="Names the results folder and the MLflow experiment.")
    task: str | None = Field(None, description="One of `vlm-rm tasks`; or else `env`.")
    env: GymEnv | None = Field(None, validate_default=True, description="Any other Gymnasium environment; it needs `prompts`.")
    models: tuple[str, ...] = Field(min_length=1, description="Ids of the models to compare; `vlm-rm models` lists them.")
    alphas: tuple[float, ...] = Field(
        min_length=1,
        description="Goal-baseline regularisation: from 0 (cosine to the goal) to 1 (only the direction from baseline to goal counts).",
    )
    prompts: tuple[Prompt, ...] = Field((), description="Prompts to compare; by default the task's own.")
    only: tuple[Combination, ...] = Field((), description="Combinations to which the grid is restricted; by default all of it.")
    textures: tuple[str, ...] = Field(
        (), description="Textures to compare, such as `[modified, original]`; by default the task's first."
    )
    cameras: tuple[str, ...] = Field(
        (), description="Cameras to compare, such as `[paper, default]`; by default the task's first."
    )
    profile: Profile = Field(
        default_factory=machine_profile,
        description="How much OpenGL draws; by default `fast` without a GPU.",
    )
    seeds: tuple[NonNegativeInt, ...] = Field((0,), min_length=1, description="Seeds of the trials.")
    true_reward: bool = Field(True, description="Add, for each seed, a trial that learns from the true reward.")
    untrained: bool = Field(False, description="Add, for each seed, the policy as it is before training: what chance reaches.")
    algorithm: AlgorithmName | None = Field(
        None, validate_default=True, description="By default, what fits the actions: dqn if they are discrete, else sac."
    )
    steps: int = Field(gt=0, description="Environment steps of each trial.")
    steps_per_result: int = Field(1_000, gt=0, description="Environment steps between two logged results.")
    settings: AlgorithmSettings = Field({}, validate_default=True, description="The algorithm's settings.")
    evaluation_episodes: int = Field(20, gt=0, description="Episodes with the greedy policy at the end of each trial.")
    checkpoint_every: int = Field(5_000, gt=0, description="Environment steps between two checkpoints of a trial.")
    best_by: BestBy = Field("success", description="What each trial's best policy is chosen by.")
    videos: bool = Field(True, description="Record an episode of each trial's best policy.")
    pool: PoolSettings = PoolSettings()
    trial: TrialResources = TrialResources()
    epic_states: int | LabelledStates = Field(
        0,
        description="What every model, alpha and prompt is measured on by EPIC before training: a number of random states, 0 for none, "
        "or a labelled data set.",
    )
    audit: AuditSettings | None = Field(
        None,
        description="Score each trial's frames for other specs and models too; the over-optimisation alarm takes five audit points.",
    )
    max_trials: int = Field(100, gt=0, description="Refuse to start more trials than this.")

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str | None) -> str | None:
        return None if name is None else get_task(name).name

    @field_validator("env")
    @classmethod
    def _task_or_env(cls, env: GymEnv | None, info: ValidationInfo) -> GymEnv | None:
        if "task" in info.data and (info.data["task"] is None) == (env is None):
            found = "neither" if env is None else "both"
            raise UserError(f"expected either `task`, the name of a task, or `env`, a Gymnasium environment, found {found}")
        return env

    @field_validator("profile", mode="before", json_schema_input_type=Profile | None)
    @classmethod
    def _profile_of_the_machine(cls, profile: Any) -> Any:
        return machine_profile() if profile is None else profile

    @field_validator("algorithm")
    @classmethod
    def _algorithm_for_the_actions(cls, algorithm: AlgorithmName | None, info: ValidationInfo) -> AlgorithmName | None:
        if "env" not in info.data or "task" not in info.data:
            return algorithm  # they are wrong, which is said already
        task = _task(info.data["task"], info.data["env"])
        fitting: AlgorithmName = "dqn" if isinstance(task.action_space, gym.spaces.Discrete) else "sac"
        if algorithm not in (None, fitting):
            kind = "discrete" if fitting == "dqn" else "continuous"
            raise UserError(
                f"it cannot learn {task.name}, whose actions are {kind} ({task.action_space}): expected {fitting}, or no `algorithm`"
            )
        return fitting

    @field_validator("settings", mode="before")
    @classmethod
    def _settings_of_the_algorithm(cls, settings: Any, info: ValidationInfo) -> Any:
        algorithm = info.data.get("algorithm")
        if algorithm is None:
            return DqnSettings()  # the algorithm is wrong, which is said already
        return _within("settings.", ALGORITHMS[algorithm], settings, f" (these are settings of {algorithm})")

    @field_validator("models")
    @classmethod
    def _known_models(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        return _models_that_exist(models)

    @field_validator("alphas")
    @classmethod
    def _alphas_in_range(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        return _strengths(alphas)

    @field_validator("audit", mode="before")
    @classmethod
    def _audit_of_this_sweep(cls, audit: Any, info: ValidationInfo) -> Any:
        """Fills in what depends on the sweep: how often, and which model `largest` is."""
        if not isinstance(audit, dict):
            return audit
        filled = {"every": max(1, info.data.get("steps", 1) // _AUDIT_POINTS)} | audit
        if audit.get("models") in (LARGEST, [LARGEST]) and "models" in info.data:
            filled["models"] = [max(info.data["models"], key=lambda model_id: find_model(model_id).parameters)]
        return filled

    @field_validator("epic_states", mode="before")
    @classmethod
    def _enough_states_or_labelled_ones(cls, states: Any) -> Any:
        from vlm_rm_sweeps.evaluation.ground_truth import MIN_STATES  # it loads scikit-learn, which takes seconds

        if isinstance(states, dict):
            return _within("epic_states.", LabelledStates, states)
        if not isinstance(states, LabelledStates | int):
            raise UserError("expected a number of random states, or a labelled data set: {states: FOLDER, truth: raters}")
        if isinstance(states, int) and states != 0 and states < MIN_STATES:
            raise UserError(f"expected 0, for none, or at least {MIN_STATES}")
        return states

    @model_validator(mode="after")
    def _whole(self) -> "Sweep":
        for axis in ("models", "alphas", "textures", "cameras", "seeds"):
            _refuse_repeats(axis, list(getattr(self, axis)))
        _refuse_repeats("prompts", [prompt.id for prompt in self.prompts])
        if self.env is not None and not self.prompts:
            raise UserError("prompts: missing, and an `env` has none of its own: expected a list of id, goal and baseline")
        for each in self.only:
            if each.model not in self.models or each.alpha not in self.alphas or each.prompt not in self._prompt_ids():
                raise UserError(
                    f"only: {each.model!r}, alpha {each.alpha:g}, prompt {each.prompt!r} is not in the grid: expected values of "
                    "models, alphas and ids of prompts"
                )
        count = len(self.trials())
        if count > self.max_trials:
            raise UserError(
                f"the grid has {count} trials, more than max_trials = {self.max_trials}: shorten an axis or raise max_trials"
            )
        if isinstance(self.epic_states, LabelledStates):
            if len(self.renderings()) > 1:
                raise UserError(
                    f"epic_states: the images in {self.epic_states.states} are drawn in one way, and the sweep compares "
                    f"{len(self.renderings())}: expected one of textures and one of cameras, or a number of random states"
                )
        elif self.epic_states:
            state_space(self.the_task())
        self._check_audit()
        for model_id in self.served_models():
            tokenizer = find_model(model_id).tokenizer
            for prompt in self.wordings():
                try:
                    check_prompts(prompt.spec(alpha=0.0), tokenizer, model_id)
                except UserError as error:
                    raise UserError(f"prompts, {prompt.id}: {error}") from error
        return self

    def _check_audit(self) -> None:
        if self.audit is None:
            return
        for axis in ("alphas", "prompts", "models"):
            _refuse_repeats(f"audit.{axis}", list(getattr(self.audit, axis)))
        for prompt in self.audit.prompts:
            if prompt not in self._prompt_ids():
                raise UserError("audit.prompts: " + unknown_name("prompt id", prompt, self._prompt_ids()))
        for gold, trained in itertools.product(self.audit.models, self.models):
            wanted, given = (find_model(model_id).preprocessing.frame_format for model_id in (gold, trained))
            if wanted != given:
                raise UserError(
                    f"audit.models: {gold} wants frames of {wanted.size} pixels ({wanted.interpolation}, {wanted.resize_mode}), and "
                    f"those of {trained} have {given.size} ({given.interpolation}, {given.resize_mode}): a gold model sees the frames "
                    f"that the trial's model sees, so name one with the same input, or `{LARGEST}` for the largest of the sweep's"
                )

    def remarks(self) -> list[str]:
        """What may surprise whoever starts this sweep, though nothing is wrong."""
        remarks = []
        if self.settings.learning_starts >= self.steps:
            remarks.append(
                f"settings.learning_starts = {self.settings.learning_starts:,}: trials of {self.steps:,} steps end before anything is "
                "learned"
            )
        if self.audit is not None and (audit_remark := self._few_audit_points(self.audit)):
            remarks.append(audit_remark)
        return remarks

    def _few_audit_points(self, audit: AuditSettings) -> str | None:
        from vlm_rm_sweeps.evaluation.overoptimisation import WINDOW  # it loads SciPy's statistics

        points = math.ceil(self.steps / max(audit.every, self.steps_per_result))
        if points >= WINDOW:
            return None
        return (
            f"audit: at most {points} audit points ({self.steps:,} steps, a point every {audit.every:,}, a result every "
            f"{self.steps_per_result:,}), and the over-optimisation alarm looks at {WINDOW}: it will say nothing; lower both to "
            f"{self.steps // WINDOW:,} or less"
        )

    def served_models(self) -> tuple[str, ...]:
        """The models that trials learn from, then the gold models of the audit."""
        return tuple(dict.fromkeys((*self.models, *(self.audit.models if self.audit else ()))))

    def served_specs(self) -> list[RewardSpec]:
        """All that any model may be asked for."""
        alphas = dict.fromkeys((*self.alphas, *(self.audit.alphas if self.audit else ())))
        return [prompt.spec(alpha) for prompt in self.wordings() for alpha in alphas]

    def audit_specs(self, trial: "Trial") -> dict[str, RewardSpec]:
        """By name, what a trial's own model scores its frames for beside the trial's own spec."""
        if self.audit is None or trial.prompt is None:
            return {}
        prompts = {prompt.id: prompt for prompt in self.wordings()}
        pairs = itertools.product(self.audit.alphas or (trial.alpha,), self.audit.prompts or (trial.prompt.id,))
        specs = {f"alpha_{alpha:g}_{prompt}": prompts[prompt].spec(alpha) for alpha, prompt in pairs}
        return {name: spec for name, spec in specs.items() if spec != trial.spec()}

    def the_task(self) -> Task:
        return _task(self.task, self.env)

    def described_epic_states(self) -> str:
        """What people read."""
        if isinstance(self.epic_states, LabelledStates):
            return f"the labelled states in {self.epic_states.states} (truth: {self.epic_states.truth})"
        return f"{self.epic_states:,} random states"

    def wordings(self) -> tuple[Prompt, ...]:
        """The prompts to compare: those of the file, else the task's own."""
        task = self.the_task()
        return self.prompts or (Prompt(id="task", goal=(task.goal_prompt,), baseline=(task.baseline_prompt,)),)

    def _prompt_ids(self) -> list[str]:
        return [prompt.id for prompt in self.wordings()]

    def combinations(self) -> list[tuple[str, float, Prompt]]:
        """Model, alpha and prompt of the grid, or those of it that `only` names."""
        named = {(each.model, each.alpha, each.prompt) for each in self.only}
        grid = itertools.product(self.models, self.alphas, self.wordings())
        return [(model, alpha, prompt) for model, alpha, prompt in grid if not named or (model, alpha, prompt.id) in named]

    def renderings(self) -> list[Rendering]:
        """The renderings to compare, the task's default if the file names none."""
        pairs = itertools.product(self.textures or (None,), self.cameras or (None,))
        return [self.the_task().rendering(textures, camera, self.profile) for textures, camera in pairs]

    def trials(self) -> list["Trial"]:
        """All trials, in a fixed order, the references (true reward, untrained) first."""
        renderings = self.renderings()
        named_references = [TRUE_REWARD] * self.true_reward + [UNTRAINED] * self.untrained
        references: list[tuple[str, float, Prompt | None, Rendering, int]] = [
            (name, 0.0, None, renderings[0], seed) for name, seed in itertools.product(named_references, self.seeds)
        ]
        grid = [
            (*combination, rendering, seed)
            for combination, rendering, seed in itertools.product(self.combinations(), renderings, self.seeds)
        ]
        named = len(renderings) > 1
        return [Trial.of(*combination, rendering_named=named) for combination in [*references, *grid]]

    def steps_of(self, trial: "Trial") -> int:
        """The environment steps that a trial learns from."""
        return 0 if trial.model_id == UNTRAINED else self.steps


def _task(name: str | None, env: GymEnv | None) -> Task:
    return env.task() if env is not None else get_task(name or "")


Checked = TypeVar("Checked", bound=BaseModel)


def _within(prefix: str, model: type[Checked], keys: Any, whose: str = "") -> Checked:
    """A part of the sweep file as what it describes. UserError whose message names each bad key in full."""
    try:
        return model.model_validate(keys)
    except ValidationError as error:
        problems = [_explain(problem, model, prefix) for problem in error.errors(include_url=False)]
        raise UserError("; ".join(problems) + whose) from error


def _models_that_exist(models: tuple[str, ...]) -> tuple[str, ...]:
    for model_id in models:
        find_model(model_id)
    return models


def _strengths(alphas: tuple[float, ...]) -> tuple[float, ...]:
    for alpha in alphas:
        if not 0 <= alpha <= 1:
            raise UserError(f"{alpha:g} is not a strength: expected numbers from 0 (cosine to the goal) to 1")
    return alphas


def _refuse_repeats(axis: str, values: list[Any]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"{axis}: {value!r} stands there {values.count(value)} times: expected each value once")


@dataclass(frozen=True)
class Trial:
    """One combination. `trial_id` is stable: it depends on what is learned from, not on the place in the grid.

    `rendering_named`: the sweep compares renderings, so that people must be told this trial's.
    """

    trial_id: str
    model_id: str
    alpha: float
    prompt: Prompt | None
    rendering: Rendering
    seed: int
    rendering_named: bool = False

    @classmethod
    def of(
        cls, model_id: str, alpha: float, prompt: Prompt | None, rendering: Rendering, seed: int, rendering_named: bool = False
    ) -> "Trial":
        # The true reward does not depend on how states are drawn.
        drawn = [prompt.model_dump(mode="json"), asdict(rendering)] if prompt else None
        digest = hashlib.sha256(json.dumps([model_id, alpha, drawn, seed]).encode()).hexdigest()
        return cls(digest[:10], model_id, alpha, prompt, rendering, seed, rendering_named)

    @property
    def prompt_id(self) -> str:
        return self.prompt.id if self.prompt else "-"

    @property
    def label(self) -> str:
        """What people read."""
        if self.prompt is None:
            return f"{self.model_id}, seed {self.seed}"
        drawn = f"{self.rendering.textures} textures, {self.rendering.camera} camera, " if self.rendering_named else ""
        return f"{self.model_id}, alpha {self.alpha:g}, prompt {self.prompt.id}, {drawn}seed {self.seed}"

    def spec(self) -> RewardSpec | None:
        """What the reward model is asked for; None for a reference."""
        return self.prompt.spec(self.alpha) if self.prompt else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for Tune."""
        return asdict(self) | {"prompt": self.prompt.model_dump(mode="json") if self.prompt else None}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Trial":
        prompt = Prompt(**data["prompt"]) if data["prompt"] else None
        return cls(**(data | {"prompt": prompt, "rendering": Rendering(**data["rendering"])}))


def load_sweep(path: Path, overrides: Iterable[str] = ()) -> Sweep:
    """Read and check a sweep file.

    Args:
        path: The sweep file; it may have a `base`.
        overrides: What `--set` gives, such as `trial.cpus=2`.

    Raises:
        UserError: One message that names the file and, for each thing that is wrong, the key, its value, what was expected and the
            nearest valid name.
    """
    return check_keys(Sweep, read_sweep_keys(path, overrides), path)


def check_keys(model: type[Checked], data: Any, path: Path, within: str = "") -> Checked:
    """The keys of a file, or of the part `within` it, as what they describe. UserError that explains each bad key."""
    try:
        return _within(within, model, data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _explain(problem: ErrorDetails, model: type[BaseModel] = Sweep, within: str = "") -> str:
    """What is wrong with a key of `model`, which lies `within` the sweep file."""
    key = within + ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = list(_fields_at(problem["loc"][:-1], model))
        nearest = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
        return f"unknown key {key!r} (value {problem['input']!r}): {suggestion}expected one of {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{key!r} is missing"
    message = "expected a list" if problem["type"] == "tuple_type" else problem["msg"].removeprefix("Value error, ")
    has_keys = key == "settings" or (key == "epic_states" and isinstance(problem["input"], dict))
    if not key or (has_keys and problem["type"] == "value_error"):
        return message  # it names the keys
    if isinstance(problem["input"], dict):
        return f"{key}: {message}"
    return f"{key} = {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _fields_at(location: tuple[int | str, ...], model: Any) -> typing.Iterable[str]:
    """The keys that are allowed at a place of the sweep file, or of the part of it that `model` describes."""
    for part in location:
        if isinstance(part, str):
            model = model.model_fields[part].annotation
        if isinstance(model, types.GenericAlias | types.UnionType):
            model = typing.get_args(model)[0]
    fields: dict[str, Any] = model.model_fields
    return fields


def describe_plan(sweep: Sweep) -> str:
    """What a sweep will run and take, for `--dry-run`. Starts nothing and loads no weights."""
    trials, pool = sweep.trials(), sweep.pool
    lines = [f"{len(trials)} trials of {sweep.steps:,} environment steps, {len(trials) * sweep.steps:,} in all:"]
    lines += [f"  {trial.trial_id}  {trial.label}" for trial in trials]
    task = sweep.the_task()
    lines.append(f"{sweep.algorithm} learns {task.name} in episodes of {task.episode_steps} steps, drawn with")
    lines += [f"  {each.textures} textures, {each.camera} camera, {each.profile} profile" for each in sweep.renderings()]
    lines.append(f"each trial reserves {sweep.trial.cpus:g} CPUs and {sweep.trial.gpus:g} GPUs; beside them run")
    bytes_each = 4 if pool.precision == "fp32" else 2
    for model_id in sweep.served_models():
        parameters = find_model(model_id).parameters
        lines.append(
            f"  {pool.servers} reward server(s) of {model_id}: {parameters / 1e6:.2f} M parameters, "
            f"{parameters * bytes_each / 1e6:.0f} MB of weights in {pool.precision}, {pool.cpus:g} CPUs and {pool.gpus:g} GPUs each"
        )
    if sweep.epic_states:
        lines.append(f"before training, {sweep.described_epic_states()} are encoded once by each model, for EPIC distances")
    if sweep.audit is not None:
        gold = f", {sweep.audit.frames} frames of them by {', '.join(sweep.audit.models)}" if sweep.audit.models else ""
        lines.append(f"about every {sweep.audit.every:,} steps of each trial are audited{gold}")
    lines += sweep.remarks()
    return "\n".join(lines)
