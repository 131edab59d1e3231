"""One trial of a sweep: a combination of the grid, or a reference, with an id that is stable across releases."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from vlm_rm_sweeps.rewards.functions.base import RewardFunction
from vlm_rm_sweeps.rewards.functions.goal_baseline import GoalBaseline
from vlm_rm_sweeps.rewards.functions.registry import describe_reward, identity_of, make_reward
from vlm_rm_sweeps.rewards.functions.threshold import Threshold
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.sweeping.config.searching import ALPHA, SETTING, Drawn
from vlm_rm_sweeps.sweeping.config.sections import Prompt
from vlm_rm_sweeps.tasks.rendering import Rendering

TRUE_REWARD = "true reward"
"""Model id of a reference that learns from the environment's own reward."""
UNTRAINED = "untrained"
"""Model id of the untrained baseline: the policy as it is before training."""
REFERENCE_PROMPT = "-"
"""The prompt of both references in tables and tags: they learn from the true reward, or not at all."""


@dataclass(frozen=True)
class Reward:
    """One value of the axis of rewards.

    Attributes:
        function: How embeddings become rewards.
        label: What the sweep calls it; None for a value of `alphas`.
    """

    function: RewardFunction
    label: str | None = None

    @property
    def alpha(self) -> float | None:
        """Its alpha if it is goal-baseline regularisation; else None."""
        return self.function.alpha if isinstance(self.function, GoalBaseline) else None

    @property
    def key(self) -> float | str:
        """What tables tell it by: its label, or the value of `alphas`."""
        return self.label if self.label is not None else self.alpha or 0.0

    def spec(self, prompt: Prompt) -> RewardSpec:
        """Return the spec of this reward with a prompt."""
        return prompt.spec(function=self.function)

    def measured(self, threshold: float | None) -> "Reward":
        """Return this reward with a measured threshold, if it needs one and there is one."""
        if threshold is None or not isinstance(self.function, Threshold) or not self.function.needs_states:
            return self
        return replace(self, function=self.function.at(threshold))

    def to_measure(self) -> "Reward":
        """Return the reward that a threshold without a value is applied to; any other one itself."""
        if isinstance(self.function, Threshold) and self.function.needs_states:
            return replace(self, function=self.function.of)
        return self


@dataclass(frozen=True)
class Sample:
    """One drawing of a search.

    Attributes:
        number: Counts from 1.
        draws_alpha: Whether alpha is among what is drawn.
        values: What was drawn, by the keys of `search.space`; None before that.
    """

    number: int
    draws_alpha: bool
    values: Mapping[str, Drawn] | None = None

    @property
    def label(self) -> str:
        """Human-readable description."""
        drawn = in_words(self.values or {})
        return f"sample {self.number} ({drawn})" if drawn else f"sample {self.number}"


def in_words(values: Mapping[str, Drawn]) -> str:
    """Write drawn values, with four digits of a number that is not whole."""
    return ", ".join(
        f"{key.removeprefix(SETTING)} {f'{value:.4g}' if isinstance(value, float) else value}" for key, value in values.items()
    )


@dataclass(frozen=True)
class Trial:
    """One combination of model, reward, prompt, rendering and seed.

    Attributes:
        trial_id: Hash of the combination; independent of the position in the grid.
        model_id: Id of the reward model, or `TRUE_REWARD` or `UNTRAINED`.
        alpha: Goal-baseline regularisation, 0 to 1; 0 for a reference, and for any other reward.
        prompt: None for a reference, which learns from no reward model.
        rendering: How states are drawn.
        seed: Seed of the training.
        rendering_named: Whether the sweep compares renderings, so that the label must name this trial's.
        reward: The reward, if the sweep names `rewards`; None if alpha says it, and for a reference.
        sample: Of a search, the sample that is trained. Its drawing may set alpha.
    """

    trial_id: str
    model_id: str
    alpha: float
    prompt: Prompt | None
    rendering: Rendering
    seed: int
    rendering_named: bool = False
    reward: Reward | None = None
    sample: Sample | None = None

    @classmethod
    def of(
        cls,
        model_id: str,
        alpha: float,
        prompt: Prompt | None,
        rendering: Rendering,
        seed: int,
        rendering_named: bool = False,
        reward: Reward | None = None,
    ) -> "Trial":
        """Make a trial whose id is derived from its combination."""
        # The true reward does not depend on how states are drawn.
        drawn = [prompt.model_dump(mode="json"), asdict(rendering)] if prompt else None
        # Goal-baseline regularisation has the same id, whether `alphas` or `rewards` names it.
        other = identity_of(reward.function) if reward is not None and reward.alpha is None else None
        digest = hashlib.sha256(json.dumps([model_id, other or alpha, drawn, seed]).encode()).hexdigest()
        return cls(digest[:10], model_id, alpha, prompt, rendering, seed, rendering_named, reward)

    def named(self, model_id: str) -> "Trial":
        """Return this trial with the id that it has if its model is called `model_id`. Nothing is drawn for it yet."""
        called = Trial.of(model_id, self.alpha, self.prompt, self.rendering, self.seed, reward=self.reward)
        if self.sample is not None:
            called = called.as_sample(self.sample)
        return replace(self, trial_id=called.trial_id)

    def as_sample(self, sample: Sample) -> "Trial":
        """Return this trial as one of a search, whose id does not depend on what will be drawn."""
        digest = hashlib.sha256(json.dumps([self.trial_id, "sample", sample.number]).encode()).hexdigest()
        return replace(self, trial_id=digest[:10], sample=sample)

    def drawn(self, values: Mapping[str, Drawn]) -> "Trial":
        """Return this trial of a search with what was drawn for its sample."""
        assert self.sample is not None
        return replace(self, alpha=float(values.get(ALPHA, self.alpha)), sample=replace(self.sample, values=dict(values)))

    @property
    def prompt_id(self) -> str:
        """The prompt's id; of a reference, `REFERENCE_PROMPT`."""
        return self.prompt.id if self.prompt else REFERENCE_PROMPT

    @property
    def label(self) -> str:
        """Human-readable description of the trial."""
        return f"{self.cell}, seed {self.seed}"

    @property
    def cell(self) -> str:
        """Human-readable description of the combination, which trials of all seeds share."""
        if self.prompt is None:
            return self.model_id
        drawn = f", {self.rendering.textures} textures, {self.rendering.camera} camera" if self.rendering_named else ""
        reward = f"reward {self.reward.label}" if self.reward else f"alpha {self.alpha:g}"
        if self.sample is not None:
            reward = self.sample.label if self.sample.draws_alpha else f"{reward}, {self.sample.label}"
        return f"{self.model_id}, {reward}, prompt {self.prompt.id}{drawn}"

    @property
    def known_alpha(self) -> float | None:
        """Alpha of goal-baseline regularisation; None for a reference, for any other reward, and before it is drawn."""
        if self.prompt is None or (self.sample is not None and self.sample.draws_alpha and self.sample.values is None):
            return None
        return self.reward.alpha if self.reward else self.alpha

    @property
    def reward_key(self) -> float | str:
        """What tables tell the trial's reward by: its label, or its alpha if the sweep has `alphas`."""
        return self.reward.key if self.reward else self.alpha

    def spec(self) -> RewardSpec | None:
        """Return the reward spec that the trial learns from; None for a reference."""
        if self.prompt is None:
            return None
        return self.reward.spec(self.prompt) if self.reward else self.prompt.spec(self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """Convert the trial to plain data, for Tune."""
        prompt = self.prompt.model_dump(mode="json") if self.prompt else None
        reward = {"function": describe_reward(self.reward.function), "label": self.reward.label} if self.reward else None
        return asdict(replace(self, reward=None)) | {"prompt": prompt, "reward": reward}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Trial":
        """Rebuild a trial from the result of `to_dict`."""
        prompt = Prompt(**data["prompt"]) if data["prompt"] else None
        named = data["reward"]
        reward = Reward(make_reward(named["function"]), named["label"]) if named else None
        sample = Sample(**data["sample"]) if data["sample"] else None
        rebuilt = {"prompt": prompt, "rendering": Rendering(**data["rendering"]), "reward": reward, "sample": sample}
        return cls(**(data | rebuilt))
