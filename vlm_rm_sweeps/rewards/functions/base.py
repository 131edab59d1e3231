"""The contract of reward functions: how embeddings of images and texts become rewards.

To add one, write a subclass, usually of `FrameReward`, and register it by `register_reward` or name it in a sweep file as
`module:Class`. Its fields are the parameters that the sweep file may set.

Shape suffixes: n images, d embedding dimensions, t steps of an episode, p parts.
"""

import hashlib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vlm_rm_sweeps.errors import UserError, shown
from vlm_rm_sweeps.frames import FrameFormat

Range = tuple[float, float]
"""The least and the largest reward; each may be infinite."""
Weight = Annotated[float, Field(ge=-1e6, le=1e6)]
"""Of a term of a reward. Beyond it float32 keeps nothing of the other terms, and overflows in the end."""
OWN = "this project's own"
"""The `source` of a reward that is from no paper."""
_DIGEST = 6


@dataclass(frozen=True)
class Texts:
    """What a reward is computed from besides the images: embeddings of texts, by the model that embedded the images.

    Attributes:
        goal: Mean of the unit embeddings of the goal prompts, float32 (d,).
        baseline: Mean of the unit embeddings of the baseline prompts, float32 (d,).
        embed: Returns the unit embedding of another text, float32 (d,); it is cached.
        logit_scale: The factor by which the model multiplies cosines before a softmax, as it was trained.
    """

    goal: np.ndarray
    baseline: np.ndarray
    embed: Callable[[str], np.ndarray]
    logit_scale: float


class EmbeddingModel(Protocol):
    """What a reward function may ask of the model that embeds its images, before weights are loaded.

    Attributes:
        model_id: Its id in sweep files.
        frame_format: Size and resizing of its frames.
    """

    model_id: str
    frame_format: FrameFormat

    @property
    def width(self) -> int:
        """Number of embedding dimensions."""

    @property
    def weights_identity(self) -> str:
        """What two models with the same embeddings have in common, on every machine."""


def dots(images_nd: np.ndarray, vector_d: np.ndarray) -> np.ndarray:
    """Compute the dot product of each image with a vector.

    It is a sum over the last axis. A matrix product (`images @ vector`) is rounded differently for other numbers of images, so a
    frame's reward would depend on what it is batched with.

    Args:
        images_nd: Embeddings of the images.
        vector_d: Any vector.

    Returns:
        float32 (n,); with unit vectors, the cosines.
    """
    products: np.ndarray = (images_nd * vector_d).sum(axis=-1, dtype=np.float32)
    return products


class RewardFunction(BaseModel, ABC):
    """Base class of reward functions with their parameters.

    A server computes the `parts` for each frame, one column each. The process that samples episodes makes rewards of them by
    `combine`. An instance is plain data, which is compared, hashed, and sent with every request.

    Subclasses set `formula` and `source`, and implement `parts` and `combine`; all other methods have defaults.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    formula: ClassVar[str] = ""
    """The reward in one line, shown by `vlm-rm rewards`."""
    source: ClassVar[str] = ""
    """Where it comes from, such as a paper; empty if it is nobody's in particular."""

    @abstractmethod
    def parts(self) -> "tuple[FrameReward, ...]":
        """Return what a server computes for each frame, one column each."""

    @abstractmethod
    def combine(self, columns: np.ndarray, true_rewards: np.ndarray) -> np.ndarray:
        """Compute the rewards of consecutive steps of one episode.

        A step's reward may depend on that step and the `memory` steps before it, and on nothing else, to the bit: an episode
        arrives in chunks, each with the steps that it needs before it.

        Args:
            columns: Values of the parts, float32 (t, p).
            true_rewards: The environment's own rewards, float32 (t,).

        Returns:
            float32 (t,).
        """

    @property
    def memory(self) -> int:
        """Number of earlier steps of the episode that a step's reward depends on."""
        return 0

    @property
    def uses_true_reward(self) -> bool:
        """Whether `combine` uses the environment's own rewards."""
        return False

    @property
    def needs_episode(self) -> bool:
        """Whether it is another reward on states that stand alone: a history has one frame there, see `alone`."""
        return self.memory > 0 or self.uses_true_reward

    @property
    def is_of_one_frame(self) -> bool:
        """Whether a server computes it alone, as its only part."""
        return self.parts() == (self,)

    @property
    def needs_states(self) -> bool:
        """Whether a parameter has to be measured on states before there are rewards, see `Threshold`."""
        return False

    def range(self) -> Range:
        """Return the least and the largest reward that are possible; infinite where unknown."""
        return -math.inf, math.inf

    def prompts(self) -> tuple[str, ...]:
        """Return the texts that it brings along, which are checked as prompts are. None of them may mean the goal."""
        return ()

    def check_prompts(self, goal: tuple[str, ...], baseline: tuple[str, ...]) -> None:
        """Refuse a goal and a baseline that its own texts do not go with.

        Args:
            goal: The goal prompts.
            baseline: The baseline prompts.

        Raises:
            UserError: One of its `prompts` is a goal.
        """
        for text in self.prompts():
            if text in goal:
                raise UserError(f"{self.label}: {text!r} is the goal, too: expected another text")

    def check_model(self, model: EmbeddingModel) -> None:
        """Refuse a model whose embeddings it cannot compute rewards from.

        Args:
            model: The model; its weights are not loaded.

        Raises:
            UserError: It needs another one.
        """

    def alone(self, columns: np.ndarray) -> np.ndarray:
        """Compute the rewards of frames that stand alone, each as if it were an episode of one step.

        Such states have no rewards of the environment: those count as 0.

        Args:
            columns: Values of the parts, float32 (n, p).

        Returns:
            float32 (n,).
        """
        if not self.memory:
            return combined(self, columns, np.zeros(len(columns), np.float32))
        rewards = [combined(self, row[None], np.zeros(1, np.float32)) for row in columns]
        return np.concatenate(rewards) if rewards else np.zeros(0, np.float32)

    @property
    def label(self) -> str:
        """Short name in tables: the class's, then each number that is not its default, and a checksum of all else."""
        words, other = [_snake_case(type(self).__name__)], {}
        for name, value in self.chosen().items():
            if isinstance(value, bool | int | float):
                words.append(f"{name}-{value:g}" if not isinstance(value, bool) else name if value else f"no-{name}")
            else:
                other[name] = value
        if other:
            words.append(hashlib.sha256(json.dumps(other, sort_keys=True).encode()).hexdigest()[:_DIGEST])
        return re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(words))

    def chosen(self) -> dict[str, Any]:
        """Return the parameters that are not defaults as plain data, by which this reward is told from others of its kind.

        Returns:
            Values by name. Files and folders are there by their name alone, so that it is the same on other machines.
        """
        given = self.model_dump(exclude_defaults=True)
        plain: dict[str, Any] = json.loads(json.dumps(given, default=lambda value: Path(value).name))
        return plain


class FrameReward(RewardFunction):
    """Base class of rewards of one frame: a subclass implements `reward` alone.

    For example:

        class Closeness(FrameReward):
            def reward(self, images, texts):
                return dots(images, texts.goal) - dots(images, texts.baseline)
    """

    @abstractmethod
    def reward(self, images: np.ndarray, texts: Texts) -> np.ndarray:
        """Compute the rewards of images.

        An image's reward must not depend on the other images, to the bit: compute dot products by `dots`.

        Args:
            images: Unit embeddings of the images, float32 (n, d).
            texts: Goal, baseline and other texts.

        Returns:
            float32 (n,).
        """

    def parts(self) -> "tuple[FrameReward, ...]":
        """Return itself, the only part."""
        return (self,)

    def combine(self, columns: np.ndarray, true_rewards: np.ndarray) -> np.ndarray:
        """Return the only column."""
        return columns[:, 0]


def seen_alone(labels: Iterable[str], where: str) -> str | None:
    """Say where rewards that need an episode are measured without one.

    Args:
        labels: Of those with `needs_episode`.
        where: What measures them, in words.

    Returns:
        One sentence; None if there are none.
    """
    return _others_there(labels, f"{where} frames alone: a history of one frame, and no reward of the environment")


def seen_in_data_set(labels: Iterable[str]) -> str | None:
    """Say how rewards that need an episode are measured on a data set of states.

    Args:
        labels: Of those with `needs_episode`.

    Returns:
        One sentence; None if there are none.
    """
    return _others_there(
        labels, "a data set has no reward of the environment, and earlier frames only where it holds every step of an episode"
    )


def _others_there(labels: Iterable[str], why: str) -> str | None:
    named = ", ".join(dict.fromkeys(labels))
    return f"rewards: {named}: {why}" if named else None


def rewards_of(function: FrameReward, images: np.ndarray, texts: Texts) -> np.ndarray:
    """Compute the rewards of images, and check that there is one for each.

    Args:
        function: Any frame reward, also a user's.
        images: Unit embeddings of the images, float32 (n, d).
        texts: Goal, baseline and other texts.

    Returns:
        float32 (n,).

    Raises:
        UserError: The function returned something else.
    """
    return _one_each(function, "reward", function.reward(images, texts), len(images), "images")


def combined(function: RewardFunction, columns: np.ndarray, true_rewards: np.ndarray) -> np.ndarray:
    """Compute the rewards of consecutive steps of one episode, and check that there is one for each.

    Args:
        function: Any reward function, also a user's.
        columns: Values of its parts, float32 (t, p).
        true_rewards: The environment's own rewards, float32 (t,).

    Returns:
        float32 (t,).

    Raises:
        UserError: The function returned something else.
    """
    return _one_each(function, "combine", function.combine(columns, true_rewards), len(columns), "steps")


def _one_each(function: RewardFunction, method: str, answer: object, count: int, of: str) -> np.ndarray:
    """Return the rewards that a method, perhaps a user's, answered with, as float32; refuse anything but a float for each."""
    rewards: Any = np.asarray(answer)
    if rewards.shape != (count,) or rewards.dtype.kind != "f":
        raise UserError(
            f"reward {function.label}: {method} returned {rewards.dtype} of shape {rewards.shape} for {count} {of}: expected one float "
            "for each"
        )
    return rewards.astype(np.float32, copy=False)


def check_function(function: RewardFunction) -> None:
    """Refuse a reward function that says or does something else than the contract, before anything is scored.

    Args:
        function: Any reward function, also a user's.

    Raises:
        UserError: One of its parameters cannot be hashed, or one of its methods returns something else.
    """
    try:
        hash(function)
    except TypeError as error:
        raise UserError(
            f"{type(function).__name__}: {error}: rewards are compared and stored by their parameters: expected numbers, texts and "
            "tuples, such as `tuple[float, ...]` in the place of `list[float]`"
        ) from error
    _check_once(function)


@lru_cache(maxsize=1_024)
def _check_once(function: RewardFunction) -> None:
    # In this order: what comes later is made of what comes before.
    promised: tuple[tuple[str, Callable[[], Any], str, Callable[[Any], bool]], ...] = (
        ("parts()", function.parts, "at least one FrameReward", lambda found: _are(FrameReward, found) and len(found) > 0),
        (
            "memory",
            lambda: function.memory,
            "a number of steps, 0 or more",
            lambda found: isinstance(found, int) and found >= 0,
        ),
        ("uses_true_reward", lambda: function.uses_true_reward, "true or false", _is_bool),
        ("needs_episode", lambda: function.needs_episode, "true or false", _is_bool),
        ("needs_states", lambda: function.needs_states, "true or false", _is_bool),
        ("prompts()", function.prompts, "a tuple of texts", lambda found: _are(str, found)),
        ("range()", function.range, "the least and the largest reward", _is_range),
        ("chosen()", function.chosen, "parameters by name", lambda found: isinstance(found, dict)),
        ("label", lambda: function.label, "a text", lambda found: isinstance(found, str)),
    )
    for what, found_by, expected, is_kept in promised:
        found = found_by()
        if not is_kept(found):
            raise UserError(f"reward {type(function).__name__}: {what} is {shown(found)}: expected {expected}")
    if function.needs_states:
        return  # there is nothing to compute with yet
    columns = np.zeros((2, len(function.parts())), np.float32)
    combined(function, columns, np.zeros(2, np.float32))
    _one_each(function, "alone", function.alone(columns), len(columns), "frames")


def _is_bool(found: Any) -> bool:
    return isinstance(found, bool)


def _is_range(found: Any) -> bool:
    return _are(Real, found) and len(found) == 2 and bool(found[0] <= found[1])


def _are(kind: Any, values: Any) -> bool:
    return isinstance(values, tuple | list) and all(isinstance(each, kind) for each in values)


def rehearse(function: FrameReward, width: int) -> None:
    """Compute a reward once, of made-up embeddings, so that what a user's function does wrong is known before anything starts.

    Args:
        function: Any frame reward whose values need not be measured first.
        width: Number of embedding dimensions.

    Raises:
        UserError: The function returned something else than rewards, or asks for the embedding of something else than a text.
    """
    units = np.random.default_rng(0).normal(size=(5, width)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)

    def embed(text: str) -> np.ndarray:
        if not isinstance(text, str):
            raise UserError(f"reward {function.label}: texts.embed({shown(text)}): expected a sentence")
        embedded: np.ndarray = units[4]
        return embedded

    with np.errstate(all="ignore"):  # an image has no such embedding
        rewards_of(function, units[:2], Texts(units[2], units[3], embed, logit_scale=100.0))


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
