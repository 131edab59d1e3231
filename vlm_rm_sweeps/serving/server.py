"""The reward server: one Ray actor that holds one reward model and scores whatever frames it is sent."""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import ray
import torch

from vlm_rm_sweeps.errors import reason_of
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardModel, RewardSpec
from vlm_rm_sweeps.serving.messages import ScoredFrames
from vlm_rm_sweeps.serving.telemetry import ServerMetrics

logger = logging.getLogger(__name__)

_RELOAD_AFTER_S = (2.0, 4.0, 8.0, 16.0, 32.0)
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Where torch has no exception of its own for it: on a CPU, in the driver, and in the libraries that reserve workspaces."""


class RewardServer:
    """Scores frames with one reward model.

    It has no state but the model: a request carries its whole specs, so any server may be killed, restarted or added. The model
    runs in one thread of its own, so that requests queue in order while the actor goes on answering.

    Args:
        model: The model, which is loaded here.
        device: Where it runs, in torch's terms.
        precision: Of its weights.
        micro_batch: Frames in one forward pass.
        threads: Threads that torch uses.
    """

    def __init__(self, model: RewardModel, device: str, precision: Precision, micro_batch: int, threads: int) -> None:
        # The number of OpenMP threads belongs to the calling thread: it is set where the model runs.
        self._executor = ThreadPoolExecutor(max_workers=1, initializer=torch.set_num_threads, initargs=(threads,))
        self._model = model
        restarted = _was_restarted()
        load = self._load_patiently if restarted else model.load
        self._executor.submit(load, device, precision, micro_batch).result()
        self._metrics = ServerMetrics(model.model_id)
        if restarted:
            self._metrics.restarted()
        self._backlog = 0

    def _load_patiently(self, device: str, precision: Precision, micro_batch: int) -> None:
        """Load a model that could be loaded before: what is in the way now (memory of the process that died) may pass.

        A server whose start fails is not started again by Ray.
        """
        for wait_s in _RELOAD_AFTER_S:
            try:
                self._model.load(device, precision, micro_batch)
                return
            except Exception as error:  # of many kinds
                logger.warning(
                    "%s cannot be loaded again (%s): next try in %g s", self._model.model_id, reason_of(error), wait_s
                )
                time.sleep(wait_s)
        self._model.load(device, precision, micro_batch)

    async def ready(self) -> bool:
        """Answers once the model is loaded."""
        return True

    async def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> ScoredFrames:
        """Score frames for all specs, from one encoding of each frame.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.
            specs: What to score for.
        """
        arrived = time.perf_counter()
        self._backlog += len(frames)
        self._metrics.backlog(self._backlog)
        try:
            rewards, seconds = await asyncio.get_running_loop().run_in_executor(self._executor, self._score, frames, specs)
        finally:
            self._backlog -= len(frames)
            self._metrics.backlog(self._backlog)
        self._metrics.scored(rewards, time.perf_counter() - arrived, seconds, self._model.micro_batch)
        return ScoredFrames(rewards, seconds, self._backlog, self._model.micro_batch)

    def _score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        while True:
            try:
                return self._model.score(frames, specs), time.perf_counter() - started
            except (RuntimeError, MemoryError) as error:
                self._shrink_micro_batch(error)

    def _shrink_micro_batch(self, error: Exception) -> None:
        """Continue with half the micro-batch if memory ran out; raise any other error again.

        A smaller shape may round differently: rewards of the same frame may then differ in their last bits.
        """
        if not _is_out_of_memory(error):
            raise error
        size = self._model.micro_batch
        if size == 1:
            raise RuntimeError(
                f"{self._model.model_id} ran out of memory with a single frame: use a smaller model, a lower `precision` or a device "
                f"with more memory ({error})"
            ) from error
        self._model.micro_batch = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning(
            "%s ran out of memory with micro-batches of %d: continues with %d", self._model.model_id, size, size // 2
        )


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(each in str(error) for each in _OUT_OF_MEMORY)


def _was_restarted() -> bool:
    """Whether Ray started this actor again. False outside of Ray."""
    if not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    return context.get_actor_id() is not None and bool(context.was_current_actor_reconstructed)
