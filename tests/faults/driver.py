"""`vlm-rm`, with reward servers and trials in which faults can be caused that cannot be caused from outside.

A file named after a fault in the folder FAULTS_FOLDER asks for it; whoever takes the file away has the fault, once. Those that
keep happening do so as long as their file is there. Ray ships the classes of a script to its workers by value, and the folder
with them.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from vlm_rm_sweeps import cli
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.server import RewardServer
from vlm_rm_sweeps.training.trial import TrainableTrial

ASKED = Path(os.environ["FAULTS_FOLDER"])
OUT_OF_MEMORY, NOT_A_NUMBER, RAISES = "out-of-memory", "not-a-number", "raises"
NEVER_ENOUGH_MEMORY, KEEPS_RAISING, KEEPS_DYING = "never-enough-memory", "keeps-raising", "keeps-dying"


def asked_for(fault: str) -> bool:
    try:
        (ASKED / fault).unlink()
    except FileNotFoundError:
        return False
    return True


class FaultyRewardServer(RewardServer):
    """Runs out of memory once, or whenever it is asked; gives NaN once."""

    def _score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> tuple[np.ndarray, float]:
        model: Any = self._model
        score = model.score

        def out_of_memory(*arguments: Any) -> Any:
            if not (ASKED / NEVER_ENOUGH_MEMORY).exists():
                model.score = score
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        if asked_for(OUT_OF_MEMORY) or (ASKED / NEVER_ENOUGH_MEMORY).exists():
            model.score = out_of_memory
        rewards, seconds = super()._score(frames, specs)
        return (np.full_like(rewards, np.nan) if asked_for(NOT_A_NUMBER) else rewards), seconds


class FaultyTrainableTrial(TrainableTrial):
    """Raises once, or the same whenever it trains; or its process dies, with the environments in it."""

    def _train(self) -> dict[str, Any]:
        if (ASKED / KEEPS_RAISING).exists():
            raise RuntimeError("the same as before")
        if (ASKED / KEEPS_DYING).exists():
            os._exit(1)
        result = super()._train()
        if asked_for(RAISES):
            # Never the same error twice: that would end the trial.
            raise RuntimeError(f"asked for at {time.time_ns()}")
        return result


if __name__ == "__main__":
    with (
        patch("vlm_rm_sweeps.serving.server.RewardServer", FaultyRewardServer),
        patch("vlm_rm_sweeps.sweeping.execution.sweep_run.TrainableTrial", FaultyTrainableTrial),
    ):
        cli.main()
