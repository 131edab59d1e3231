"""The contract of reward models, and the specs that they score.

Everything that uses rewards (servers, pools, training, evaluation) depends only on `RewardModel`. To add another kind of
model, write one subclass, and register it by `register_reward_model` or name it in a sweep file as `module:Class`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vlm_rm_sweeps.errors import UserError, shown
from vlm_rm_sweeps.frames import FrameFormat, check_frames, resize_frames
from vlm_rm_sweeps.rewards.functions.base import RewardFunction, check_function
from vlm_rm_sweeps.rewards.functions.goal_baseline import GoalBaseline
from vlm_rm_sweeps.rewards.functions.model_column import ModelColumn
from vlm_rm_sweeps.rewards.prompt_text import check_visible

Precision = Literal["fp32", "bf16", "fp16"]
"""Floating-point precision of the weights. On near-identical frames, less than fp32 changes the order of rewards."""

BackendName = Literal["torch", "folded", "onnxruntime"]
"""What runs a CLIP model's image tower, see `backends.py`."""


_MOST_PROMPTS, _LONGEST_PROMPT = 1_000, 10_000
"""Of one spec: each prompt is tokenised and encoded, and data may have any number."""


@dataclass(frozen=True)
class RewardSpec:
    """Prompts and function of one reward: plain, hashable data that is sent with every request.

    Args:
        goal_prompts: One or more prompts that describe the goal; their embeddings are averaged (prompt ensembling).
        baseline_prompts: One or more prompts that describe the scene without the goal, averaged in the same way.
        alpha: Weight of goal-baseline regularisation (paper, section 3.2), from 0 (none: cosine similarity to the goal) to 1
            (only the direction from baseline to goal counts). It is the short form of a `GoalBaseline` function.
        function: How embeddings become the reward, if not by goal-baseline regularisation; alpha is 0 then.

    Raises:
        UserError: The prompts are a string, one of them is empty or has an invisible character, alpha is out of range, goal and
            baseline are the same, so that they define no direction, or the function cannot go with them.
    """

    goal_prompts: tuple[str, ...]
    baseline_prompts: tuple[str, ...]
    alpha: float = 0.0
    function: RewardFunction | None = None

    def __post_init__(self) -> None:
        for kind, prompts in (("goal", self.goal_prompts), ("baseline", self.baseline_prompts)):
            listed = _as_tuple(kind, prompts)
            object.__setattr__(self, f"{kind}_prompts", listed)
            if any(not isinstance(prompt, str) for prompt in listed):
                raise UserError(f"{kind} prompts {shown(list(listed))}: expected strings")
            if len(listed) > _MOST_PROMPTS or max(map(len, listed), default=0) > _LONGEST_PROMPT:
                raise UserError(
                    f"{kind} prompts: {len(listed):,}, the longest of {max(map(len, listed)):,} letters: expected {_MOST_PROMPTS:,} of "
                    f"{_LONGEST_PROMPT:,} letters at most"
                )
            check_visible(f"{kind} prompts", listed)
        if not isinstance(self.alpha, Real) or not 0 <= self.alpha <= 1:  # NaN is neither
            raise UserError(
                f"alpha {shown(self.alpha)}: expected a number from 0 (cosine to the goal) to 1 (baseline-to-goal line only)"
            )
        object.__setattr__(self, "alpha", float(self.alpha))  # models calculate with it, and a bool has no minus
        if set(self.goal_prompts) == set(self.baseline_prompts):
            raise UserError(
                f"goal and baseline are the same, {shown(list(self.goal_prompts))}: the baseline describes the scene without the goal, "
                "such as 'pole and cart'"
            )
        if self.function is not None:
            self._check_function(self.function)

    def _check_function(self, function: RewardFunction) -> None:
        if not isinstance(function, RewardFunction):
            raise UserError(f"function {shown(function)}: expected a RewardFunction, such as Softmax(negatives=('a pole',))")
        if self.alpha:
            raise UserError(f"alpha {self.alpha:g} and {function.label}: expected one of both; alpha means goal_baseline")
        if isinstance(function, GoalBaseline):  # so that equal rewards are equal specs
            object.__setattr__(self, "alpha", function.alpha)
            object.__setattr__(self, "function", None)
            return
        check_function(function)
        function.check_prompts(self.goal_prompts, self.baseline_prompts)

    @property
    def label(self) -> str:
        """The reward without its prompts, for messages and labels: `alpha 0.5`, or the function's own label."""
        return f"alpha {self.alpha:g}" if self.function is None else self.function.label

    def column(self, name: str) -> "RewardSpec":
        """Return the spec that asks for one of a model's own columns, see `RewardModel.columns`."""
        return RewardSpec(self.goal_prompts, self.baseline_prompts, function=ModelColumn(name=name))

    def parts(self) -> "tuple[RewardSpec, ...]":
        """Return the specs that a model scores, one column each: of a reward of single frames, itself alone."""
        if self.function is None or self.function.is_of_one_frame:
            return (self,)
        return tuple(RewardSpec(self.goal_prompts, self.baseline_prompts, function=part) for part in self.function.parts())


def _as_tuple(kind: str, prompts: Any) -> tuple[Any, ...]:
    expected = f"{kind} prompts {shown(prompts)}: expected a tuple of prompts, such as ('a pole',)"
    if isinstance(prompts, str) or not isinstance(prompts, Iterable):
        raise UserError(expected)
    try:
        return tuple(prompts)
    except Exception as error:  # a tensor or an array without axes
        raise UserError(expected) from error


def check_request(frames: Any, specs: Any) -> None:
    """Refuse a scoring request that no reward model can answer.

    Args:
        frames: Anything. No frames (N = 0) are a request, too, whose answer is empty.
        specs: Anything.

    Raises:
        UserError: The frames are not uint8 (N, H, W, 3), or the specs are not a sequence of at least one RewardSpec, each of a
            reward of single frames.
    """
    check_frames(frames)
    if not isinstance(specs, Sequence) or not specs or not all(isinstance(spec, RewardSpec) for spec in specs):
        raise UserError(f"specs {shown(specs)}: expected a sequence of at least one RewardSpec, such as [RewardSpec(...)]")
    for spec in specs:
        if spec.function is not None and not spec.function.is_of_one_frame:
            raise UserError(f"reward {spec.function.label} has no value of one frame: ask for the specs of `spec.parts()`")


def judges_by_prompts(model_id: str, rewards: Iterable[str]) -> str:
    """Say that a judge cannot compute rewards, and what it judges by in their place, see `RewardModel.judged_by`.

    Args:
        model_id: Id of the judge.
        rewards: Labels of the rewards.

    Returns:
        One sentence.
    """
    named = ", ".join(dict.fromkeys(rewards))
    return f"{model_id} cannot compute the reward {named}: it judges by goal and baseline alone (goal_baseline at alpha 0)"


def check_is_spec(spec: Any) -> None:
    """Refuse anything but a spec.

    Args:
        spec: Anything.

    Raises:
        UserError: It is no RewardSpec.
    """
    if not isinstance(spec, RewardSpec):
        raise UserError(f"spec {shown(spec)}: expected a RewardSpec, such as RewardSpec(('a pole standing up',), ('a pole',))")


class JudgeUnavailableError(UserError):
    """A model that only judges cannot do so now. Nobody learns from it, so that training goes on without its judgement."""


class RewardModel(ABC):
    """Base class of reward models, which score frames.

    An instance is created from its model id alone and is cheap: it describes itself, checks specs, and can be pickled. `load`
    then loads the weights, once, in the process that scores. A model without weights need not override it.

    Models are deterministic: a frame's reward does not depend on the frames that it is batched with.

    Args:
        model_id: Its id in sweep files.

    Attributes:
        model_id: Its id in sweep files.
        frame_format: Size and resizing of frames. Environments render at this size; frames of any other size are accepted and
            resized.
        parameters: Number of parameters of the whole model; 0 for a model without any.
        micro_batch: Frames in one forward pass. The server halves it when memory runs out.
        backend: What runs its network.
        embeds: Whether it computes rewards from embeddings, so that it can compute any reward function; else it scores by alpha
            alone.
        columns: Names of what it can tell of a frame beside rewards, one number each, such as `drift`. They are asked for by
            `RewardSpec.column`; audits show their means.
        judges_only: Whether it is too slow or too dear to learn from, or to measure. It takes frames of any size as they are, and
            may be unavailable at times (`JudgeUnavailableError`).
    """

    model_id: str
    frame_format: FrameFormat
    parameters: int = 0
    micro_batch: int = 64
    backend: BackendName = "torch"
    embeds: bool = False
    columns: tuple[str, ...] = ()
    judges_only: bool = False

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    def check(self, spec: RewardSpec) -> None:
        """Refuse a spec that this model cannot score, part by part.

        Call this; `check_spec` is what models override.

        Args:
            spec: Prompts and function to check.

        Raises:
            UserError: It is no spec, the model scores by alpha alone and the spec has another function, it lacks the column that the
                spec asks for, or `check_spec` refuses a part.
        """
        check_is_spec(spec)
        if isinstance(spec.function, ModelColumn):
            if spec.function.name not in self.columns:
                expected = " or ".join(self.columns) or "a model that has columns"
                raise UserError(f"{self.model_id} has no column {spec.function.name!r}: expected {expected}")
            return
        if spec.function is not None and not self.embeds:
            raise UserError(
                f"{self.model_id} has no embeddings, so it cannot compute the reward {spec.function.label}: expected a CLIP model for "
                "it, or `alphas` (goal_baseline), which such a model may read as it likes"
            )
        for part in spec.parts():
            self.check_spec(part)

    def judged_by(self, spec: RewardSpec) -> RewardSpec:
        """Return what this model scores to judge frames of a policy that another model's reward taught.

        A judge only has to say how well a frame fits the sentence, and not to compute the same function.

        Args:
            spec: What the policy learns from.

        Returns:
            The spec, or, if this model cannot compute its function, goal and baseline alone at alpha 0.
        """
        if spec.function is None:
            return spec
        try:
            self.check(spec)
        except UserError:
            return RewardSpec(spec.goal_prompts, spec.baseline_prompts)
        return spec

    def check_spec(self, spec: RewardSpec) -> None:  # noqa: B027 - most models can score any spec
        """Refuse a spec that this model cannot score.

        It is called before anything starts, without weights.

        Args:
            spec: Prompts and alpha, or a function of single frames, to check.

        Raises:
            UserError: The model cannot score it, for example because a prompt is longer than its context.
        """

    def check_scene(self, task: str, textures: str, camera: str) -> None:  # noqa: B027 - most models take any frames
        """Refuse frames of a scene that this model does not know.

        It is called before anything starts, without weights.

        Args:
            task: Name of the task whose states are drawn.
            textures: Textures that they are drawn with.
            camera: Camera that they are drawn by.

        Raises:
            UserError: Rewards of such frames would mean nothing.
        """

    def check_weights(self) -> None:  # noqa: B027 - a model without weights has nothing to check
        """Refuse weights that cannot be this model's, before anything starts, without loading them.

        Raises:
            UserError: They are of something else.
        """

    def use_backend(self, backend: BackendName, device: str = "cpu", precision: Precision = "fp32") -> None:
        """Choose what will run the network, before `load`.

        It is called before anything starts. Only CLIP models have a choice.

        Args:
            backend: The backend.
            device: torch device that the model will run on.
            precision: Floating-point precision of the weights.

        Raises:
            UserError: The model does not support the backend, or the backend cannot run as asked.
        """
        if backend != "torch":
            raise UserError(
                f"backend {backend!r} is for CLIP models, and {self.model_id} is run by its own class: choose 'torch' for a sweep that "
                "includes it"
            )

    @property
    def identity(self) -> str:
        """What two ids of the same model have in common, unless a model overrides it: the id."""
        return self.model_id

    @property
    def files(self) -> Sequence[Path]:
        """Files of this machine that the model is made from, by default none.

        Small ones travel with it to reward servers on other nodes. There `local_path` tells where each of them is.
        """
        return ()

    def remarks_on(self, spec: RewardSpec) -> list[str]:
        """List remarks about a spec that this model can score but may not understand; by default none."""
        return []

    def remarks(self) -> list[str]:
        """List remarks about this model that may surprise the user, printed before a sweep starts; by default none."""
        return []

    def remarks_on_states(self, means: Mapping[str, float]) -> list[str]:
        """List remarks about states that were measured; by default none.

        Args:
            means: Means of the model's own columns over the states, by name.

        Returns:
            Sentences.

        Raises:
            UserError: Rewards of so many of the states mean nothing that measures of them would not, either.
        """
        return []

    def load(self, device: str = "cpu", precision: Precision = "fp32", micro_batch: int = 64) -> None:
        """Load the weights.

        Args:
            device: torch device that the model runs on: `cpu`, `cuda`, `cuda:1`.
            precision: Floating-point precision of the weights.
            micro_batch: Frames in one forward pass.

        Raises:
            UserError: This machine has no such device, there is no such precision, the micro-batch has no frames, or the weights are
                missing, damaged or cannot be downloaded.
        """
        if not isinstance(micro_batch, Integral) or micro_batch < 1:
            raise UserError(
                f"micro_batch {shown(micro_batch)}: expected at least one frame in each forward pass, a whole number"
            )
        if precision not in get_args(Precision):
            raise UserError(f"precision {shown(precision)}: expected one of {', '.join(get_args(Precision))}")
        self.micro_batch = micro_batch

    @abstractmethod
    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        """Score frames for many specs at once, encoding each frame once.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.
            specs: Prompts and function of each reward, each of single frames.

        Returns:
            Rewards, float32 (N, number of specs).

        Raises:
            UserError: The model cannot score one of the specs.
        """

    def visible(self, frames: np.ndarray) -> np.ndarray:
        """Return frames as the model sees them: resized, unless a model overrides it.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.

        Returns:
            uint8 (N, H', W', 3).
        """
        return resize_frames(frames, self.frame_format)


def scores_of(model: RewardModel, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
    """Score frames, and check that there is one number for each frame and spec.

    Args:
        model: Any model, also a user's.
        frames: uint8 (N, H, W, 3), of any height and width.
        specs: As for `RewardModel.score`.

    Returns:
        Rewards, float32 (N, number of specs).

    Raises:
        UserError: The model returned something else.
    """
    answer = model.score(frames, specs)
    try:
        rewards: Any = np.asarray(answer)
    except Exception as error:  # lists of several lengths, or a tensor on a GPU
        raise UserError(f"{model.model_id} returned {shown(answer)}: {_expected(frames, specs)}") from error
    if rewards.shape != (len(frames), len(specs)) or rewards.dtype.kind not in "fiu":
        raise UserError(
            f"{model.model_id} returned {rewards.dtype} of shape {rewards.shape} for {len(frames)} frames and {len(specs)} specs: "
            f"{_expected(frames, specs)}"
        )
    return rewards.astype(np.float32, copy=False)


def _expected(frames: np.ndarray, specs: Sequence[RewardSpec]) -> str:
    return f"expected float32 ({len(frames)}, {len(specs)}), a reward for each frame and spec"
