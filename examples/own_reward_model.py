"""A reward model of your own: one class. Here, how red the frame is.

    vlm-rm sweep examples/own_parts.yaml          names it as `own_reward_model:Redness`
    vlm-rm landscape --task mountaincar-summit --model own_reward_model:Redness -o results/redness    (in this folder)

The servers, `landscape`, `epic`, screenings, audits, `--judge` and the report use it like any other reward model.
"""

from collections.abc import Sequence

import numpy as np

from vlm_rm_sweeps import FrameFormat, RewardModel, RewardSpec, UserError


class Redness(RewardModel):
    """Mean intensity of red in the frame minus that of green. The only word that it understands in a prompt is `red`."""

    frame_format = FrameFormat(size=64)

    def check_spec(self, spec: RewardSpec) -> None:
        """Refuse goal prompts that do not mention red, before anything starts."""
        if not all("red" in goal for goal in spec.goal_prompts):
            raise UserError(
                f"goal prompts {list(spec.goal_prompts)!r}: {self.model_id} understands only goals that speak of red"
            )

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        """Score frames, uint8 (N, H, W, 3), and return rewards, float32 (N, number of specs)."""
        red, green, _ = frames.mean(axis=(1, 2), dtype=np.float32).T / 255
        return np.repeat((red - green)[:, None], len(specs), axis=1)
