"""One trial of a sweep: a combination of the grid, or a reference, with an id that is stable across releases."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.sweeping.config.sections import Prompt
from vlm_rm_sweeps.tasks.rendering import Rendering

TRUE_REWARD = "true reward"
"""Model id of a reference that learns from the environment's own reward."""
UNTRAINED = "untrained"
"""Model id of the untrained baseline: the policy as it is before training."""


@dataclass(frozen=True)
class Trial:
    """One combination of model, alpha, prompt, rendering and seed.

    Attributes:
        trial_id: Hash of the combination; independent of the position in the grid.
        model_id: Id of the reward model, or `TRUE_REWARD` or `UNTRAINED`.
        alpha: Goal-baseline regularisation, 0 to 1; 0 for a reference.
        prompt: None for a reference, which learns from no reward model.
        rendering: How states are drawn.
        seed: Seed of the training.
        rendering_named: Whether the sweep compares renderings, so that the label must name this trial's.
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
        """Make a trial whose id is derived from its combination."""
        # The true reward does not depend on how states are drawn.
        drawn = [prompt.model_dump(mode="json"), asdict(rendering)] if prompt else None
        digest = hashlib.sha256(json.dumps([model_id, alpha, drawn, seed]).encode()).hexdigest()
        return cls(digest[:10], model_id, alpha, prompt, rendering, seed, rendering_named)

    def named(self, model_id: str) -> "Trial":
        """Return this trial with the id that it has if its model is called `model_id`."""
        called = Trial.of(model_id, self.alpha, self.prompt, self.rendering, self.seed)
        return replace(self, trial_id=called.trial_id)

    @property
    def prompt_id(self) -> str:
        """The prompt's id, `-` for a reference."""
        return self.prompt.id if self.prompt else "-"

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
        return f"{self.model_id}, alpha {self.alpha:g}, prompt {self.prompt.id}{drawn}"

    def spec(self) -> RewardSpec | None:
        """Return the reward spec that the trial learns from; None for a reference."""
        return self.prompt.spec(self.alpha) if self.prompt else None

    def to_dict(self) -> dict[str, Any]:
        """Convert the trial to plain data, for Tune."""
        return asdict(self) | {"prompt": self.prompt.model_dump(mode="json") if self.prompt else None}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Trial":
        """Rebuild a trial from the result of `to_dict`."""
        prompt = Prompt(**data["prompt"]) if data["prompt"] else None
        return cls(**(data | {"prompt": prompt, "rendering": Rendering(**data["rendering"])}))
