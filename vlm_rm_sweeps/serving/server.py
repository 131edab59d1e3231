"""The reward server: a Ray actor that holds one reward model and scores the frames that it is sent."""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import ray
import torch

from vlm_rm_sweeps.errors import reason_of
from vlm_rm_sweeps.process_defaults import keep_freed_memory
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardSpec, scores_of
from vlm_rm_sweeps.serving.messages import ScoredFrames
from vlm_rm_sweeps.serving.packed_model import PackedModel
from vlm_rm_sweeps.serving.telemetry import ServerMetrics

logger = logging.getLogger(__name__)

_RELOAD_AFTER_S = (2.0, 4.0, 8.0, 16.0, 32.0)
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Messages of out-of-memory errors for which torch has no exception: on a CPU, in the CUDA driver, and in CUDA's libraries."""


class RewardServer:
    """Scores frames with one reward model.

    It has no state but the model: each request contains its specs, so any server can be killed, restarted or added. The model
    runs in one thread of its own, so that requests are scored in order while the actor stays responsive.

    Args:
        packed: The model, which is loaded by the constructor.
        device: torch device that it runs on.
        precision: Floating-point precision of its weights.
        micro_batch: Frames in one forward pass.
        threads: Number of threads that torch uses.
    """

    def __init__(self, packed: PackedModel, device: str, precision: Precision, micro_batch: int, threads: int) -> None:
        keep_freed_memory()
        model = packed.unpack()
        # The number of OpenMP threads is a setting of the calling thread, so it is set in the model's thread.
        self._executor = ThreadPoolExecutor(max_workers=1, initializer=torch.set_num_threads, initargs=(threads,))
        self._model = model
        restarted = _was_restarted()
        load = self._load_patiently if restarted else model.load
        self._executor.submit(load, device, precision, micro_batch).result()
        self._metrics = ServerMetrics(model.model_id)
        if restarted:
            self._metrics.restarted()
        self._backlog = 0
        self._node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""

    def _load_patiently(self, device: str, precision: Precision, micro_batch: int) -> None:
        """Load a model with retries, after a restart: an obstacle (memory of the process that died) may disappear.

        Ray does not restart a server whose constructor fails.
        """
        for wait_s in _RELOAD_AFTER_S:
            try:
                self._model.load(device, precision, micro_batch)
                return
            except Exception as error:  # a model may raise anything
                logger.warning(
                    "%s cannot be loaded again (%s): next try in %g s", self._model.model_id, reason_of(error), wait_s
                )
                time.sleep(wait_s)
        self._model.load(device, precision, micro_batch)

    async def ready(self) -> bool:
        """Return True; a call is answered only once the model is loaded."""
        return True

    async def backlog(self) -> int:
        """Return the number of frames that were accepted but not scored yet."""
        return self._backlog

    async def check_spec(self, spec: RewardSpec) -> None:
        """Refuse a spec that the model cannot score.

        Args:
            spec: Prompts and function to check.

        Raises:
            UserError: The model cannot score it.
        """
        await asyncio.get_running_loop().run_in_executor(self._executor, self._model.check, spec)

    async def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> ScoredFrames:
        """Score frames for all specs, encoding each frame once.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.
            specs: Prompts and function of each reward, each of single frames.

        Returns:
            Rewards, float32 (N, number of specs), with timing and load of the server.
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
        return ScoredFrames(rewards, seconds, self._backlog, time.time(), self._model.micro_batch, self._node)

    def _score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        while True:
            try:
                return scores_of(self._model, frames, specs), time.perf_counter() - started
            except (RuntimeError, MemoryError) as error:
                self._shrink_micro_batch(error)

    def _shrink_micro_batch(self, error: Exception) -> None:
        """Halve the micro-batch if memory ran out; re-raise any other error.

        Another shape may be rounded differently, so rewards of the same frame may differ in their last bits.
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
    """Return whether Ray has restarted this actor; False outside Ray."""
    if not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    return context.get_actor_id() is not None and bool(context.was_current_actor_reconstructed)
