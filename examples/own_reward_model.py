"""A reward model of your own: one class. Here, how red the frame is.

    vlm-rm sweep examples/own_parts.yaml          names it as `own_reward_model:Redness`
    vlm-rm landscape --task mountaincar-summit --model own_reward_model:Redness -o results/redness    (in this folder)

The servers, `landscape`, `epic`, screenings, audits, `--judge` and the report take it without knowing what it is.
"""

from collections.abc import Sequence

import numpy as np

from vlm_rm_sweeps import FrameFormat, RewardModel, RewardSpec, UserError


class Redness(RewardModel):
    """The share of red in the frame's light, minus that of green. It reads no prompt but the word `red`."""

    frame_format = FrameFormat(size=64)

    def check_spec(self, spec: RewardSpec) -> None:
        """Refuse goals that do not speak of red, before anything starts."""
        if not all("red" in goal for goal in spec.goal_prompts):
            raise UserError(
                f"goal prompts {list(spec.goal_prompts)!r}: {self.model_id} understands only goals that speak of red"
            )

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        """Score uint8 (N, H, W, 3) frames: float32 (N, specs)."""
        red, green, _ = frames.mean(axis=(1, 2), dtype=np.float32).T / 255
        return np.repeat((red - green)[:, None], len(specs), axis=1)
