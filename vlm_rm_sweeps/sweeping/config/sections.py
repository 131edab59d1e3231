"""The sections of a sweep file, each with its own keys: schema only, independent of the machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.base import RewardFunction
from vlm_rm_sweeps.rewards.functions.registry import KIND
from vlm_rm_sweeps.rewards.reward_model import BackendName, Precision, RewardSpec

LARGEST = "largest"
"""In `audit.models`: the largest of the sweep's models."""
_MOST_SERVERS = 1_024
_SHORT_NAME = r"^[A-Za-z0-9_.-]{1,40}$"


class Section(BaseModel):
    """Base class of everything in a sweep file: unknown keys are refused, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_is_true(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `steps: true`, which pydantic takes for 1."""
        of_numbers = info.field_name and not {bool, Any} & {*_types_in(cls.model_fields[info.field_name].annotation)}
        if of_numbers and (
            isinstance(value, bool) or (isinstance(value, list) and any(isinstance(each, bool) for each in value))
        ):
            raise UserError("expected no true or false: write a number, or a text in quotes")
        return value


def _whole_or_less_than_one(gpus: float) -> float:
    if gpus > 1 and not gpus.is_integer():
        raise UserError("expected a whole number of GPUs, or a fraction of one: Ray gives nothing in between")
    return gpus


Gpus = Annotated[float, AfterValidator(_whole_or_less_than_one)]
"""A number of GPUs that Ray can reserve."""


def _types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _types_in(part)


class Prompt(Section):
    """One goal in words. `goal` and `baseline` are a sentence, or several whose embeddings are averaged."""

    id: str = Field(pattern=_SHORT_NAME, description="Short name, shown in tables and used as a tag.")
    goal: tuple[str, ...] = Field(description="What the robot should do: a sentence, or a list of sentences.")
    baseline: tuple[str, ...] = Field(description="What is to be seen in any state, with or without the goal.")

    @field_validator("goal", "baseline", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        sentences = (value,) if isinstance(value, str) else value
        if not (isinstance(sentences, list | tuple) and all(isinstance(each, str) for each in sentences)):
            raise UserError("expected a sentence, or a list of sentences; a number needs quotes")
        return sentences

    @model_validator(mode="after")
    def _can_be_scored(self) -> "Prompt":
        self.spec(alpha=0.0)
        return self

    def spec(self, alpha: float = 0.0, function: RewardFunction | None = None) -> RewardSpec:
        """Return the reward spec of this prompt at one alpha, or with another reward function.

        Args:
            alpha: Goal-baseline regularisation.
            function: Another reward function; alpha is 0 then.

        Returns:
            The spec.

        Raises:
            UserError: The function's own texts do not go with this prompt.
        """
        return RewardSpec(self.goal, self.baseline, alpha, function)


class RewardSettings(Section):
    """One reward: its kind, parameters of that kind, and a name."""

    # The parameters depend on the kind, which is looked up when the sweep is planned.
    model_config = ConfigDict(extra="allow")

    kind: str = Field(description="One of `vlm-rm rewards`, or `module:Class`.")
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,39}$",
        description="What tables, tags and `only` call it; by default its kind with the parameters that are not defaults.",
    )

    def described(self) -> dict[str, Any]:
        """Return kind and parameters, as `make_reward` takes them."""
        return {KIND: self.kind, **(self.model_extra or {})}


_ServerCount = Annotated[int, Field(ge=1, le=_MOST_SERVERS)]


class ServerRange(Section):
    """How many servers a model has, by how many frames wait for them."""

    min: _ServerCount = Field(1, description="Servers at the start, and at least.")
    max: _ServerCount = Field(description="Servers at most.")

    @model_validator(mode="after")
    def _in_order(self) -> "ServerRange":
        if self.min > self.max:
            raise UserError(f"min {self.min}, max {self.max}: expected a `max` that is not below `min`")
        return self


class PoolSettings(Section):
    """How each model is served."""

    servers: ServerRange = Field(
        1,
        validate_default=True,
        description="Reward servers for each model: a number, or `{min: 1, max: 8}`. Then servers are started while frames wait for "
        "those that run, and ended while few do.",
    )
    precision: Precision = Field("fp32", description="Precision of the weights.")
    backend: BackendName = Field(
        "torch",
        description="What runs CLIP's image tower on the servers: `folded` multiplies batch normalisations into convolutions; "
        "`onnxruntime` is fastest on a CPU, in fp32, and needs the package's extra `onnxruntime`. Rewards differ in their last digits.",
    )
    micro_batch: int = Field(64, ge=1, le=65_536, description="Frames in one forward pass.")
    cpus: float = Field(0, ge=0, description="CPUs that Ray reserves for each server.")
    gpus: Gpus = Field(0, ge=0, description="GPUs, or a fraction of one, for each server.")
    threads: int = Field(1, ge=1, le=1_024, description="Threads that each server uses.")
    timeout_s: float = Field(
        600, gt=0, le=10**7, description="Seconds after which a server that has not answered is restarted."
    )
    shared: bool = Field(
        False,
        description="Use the servers of other sweeps on the same cluster that have the same model and the same keys under `pool`, or "
        "leave them to others: the last sweep's servers end after five minutes. Not for models of your own classes.",
    )

    @field_validator("servers", mode="before", json_schema_input_type=_ServerCount | ServerRange)
    @classmethod
    def _a_number_or_both(cls, value: Any) -> Any:
        if isinstance(value, dict | ServerRange):
            return value
        try:
            return ServerRange(min=value, max=value)
        except ValidationError as error:
            raise UserError(f"expected a number of servers from 1 to {_MOST_SERVERS}, or `{{min: 1, max: 8}}`") from error

    @field_serializer("servers")
    def _as_written(self, servers: ServerRange) -> int | dict[str, int]:
        return servers.min if servers.min == servers.max else {"min": servers.min, "max": servers.max}


class TrialResources(Section):
    """What each trial reserves, how often it is retried, and how its best policy is chosen."""

    cpus: float = Field(1, gt=0, description="CPUs that Ray reserves for each trial.")
    gpus: Gpus = Field(
        0,
        ge=0,
        description="GPUs, or a fraction of one, that each trial reserves: to draw with OpenGL on its node, and for its `learner`.",
    )
    learner: Literal["cpu", "gpu"] = Field(
        "cpu",
        description="Where each trial computes its updates: `gpu` is the GPU that `gpus` reserves. Environments are stepped on CPUs.",
    )
    env_runners: int = Field(
        0,
        ge=0,
        le=1_024,
        description="RLlib env runners of each trial, each with a CPU of its own; 0 steps the environments in the trial.",
    )
    evaluation_interval: int | None = Field(
        None,
        gt=0,
        description="Choose the best policy by `evaluation_episodes` greedy episodes each time after this many environment steps, "
        "rounded up to results; by default by the training episodes of each result, which explore.",
    )
    retries: int = Field(
        2,
        ge=0,
        description="How often a failed trial is retried from its last checkpoint. The same error at the same step ends it. "
        "Nodes of a cluster that die do not count.",
    )

    @model_validator(mode="after")
    def _has_the_gpu_that_it_learns_on(self) -> "TrialResources":
        if self.learner == "gpu" and not self.gpus:
            raise UserError(
                "trial.learner is gpu, and trial.gpus is 0: expected the GPU that each trial learns on, or a fraction of one, such as "
                "`trial: {gpus: 0.25, learner: gpu}`"
            )
        return self


class AuditSettings(Section):
    """What else every trial's frames are scored for, to detect over-optimisation."""

    alphas: tuple[float, ...] = Field((), description="Other values of alpha; by default the trial's own.")
    prompts: tuple[str, ...] = Field((), description="Ids of other prompts of the sweep; by default the trial's own.")
    models: tuple[str, ...] = Field(
        (),
        description="Gold models, which score for the trial's own spec, or for its goal and baseline alone if they cannot compute its "
        "reward; `largest` is the largest of the sweep's models.",
    )
    every: int | None = Field(
        None,
        gt=0,
        description="Environment steps between two audit points, rounded up to results; by default a tenth of the trial's. With "
        "fewer than the steps of `envs` whole episodes each point shows another part of the episodes.",
    )
    frames: int = Field(500, ge=10, description="Frames of each interval, drawn at random, that the gold models score.")

    @field_validator("models", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("alphas")
    @classmethod
    def _alphas_in_range(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        return check_alphas(alphas)


class LabelledStates(Section):
    """A data set of states, and the truth that rewards are measured against on it."""

    states: Path = Field(description="Folder of a labelled data set of states, as `vlm-rm states` makes it.")
    truth: str = Field("success", description="`success`, `rater:NAME`, `raters` or a formula, as in `vlm-rm epic --truth`.")


class Combination(Section):
    """One cell of the grid."""

    model: str = Field(description="One of `models`.")
    alpha: float | None = Field(None, description="One of `alphas`.")
    reward: str | None = Field(None, description="The label of one of `rewards`, in the place of `alpha`.")
    prompt: str = Field(description="The id of one of `prompts`.")

    @model_validator(mode="after")
    def _one_reward(self) -> "Combination":
        if (self.alpha is None) == (self.reward is None):
            raise UserError("expected either `alpha`, one of `alphas`, or `reward`, the label of one of `rewards`")
        return self


def check_alphas(alphas: tuple[float, ...]) -> tuple[float, ...]:
    """Check that all values of alpha are in [0, 1], and can be told apart in labels.

    Args:
        alphas: Values of alpha.

    Returns:
        `alphas`, unchanged.

    Raises:
        UserError: A value is outside this range, or two are shown as the same.
    """
    for alpha in alphas:
        if not 0 <= alpha <= 1:
            raise UserError(
                f"alpha must be in [0, 1], got {alpha:g}: 0 is the cosine to the goal, 1 the baseline-to-goal line only"
            )
    for alpha in alphas:
        alike = [other for other in alphas if f"{other:g}" == f"{alpha:g}" and other != alpha]
        if alike:
            raise UserError(f"{alpha!r} and {alike[0]!r} are both shown as {alpha:g}: expected values that differ in 6 digits")
    return alphas
