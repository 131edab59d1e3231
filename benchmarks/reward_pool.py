"""Frames per second through the reward pool, compared with the same model's bare `encode_image` on the same frames.

Run `make bench`, or `.venv/bin/python benchmarks/reward_pool.py`. It prints one row for each embedded model and request size.
All take turns in one run, each with one thread, on the same frames in the same memory format; the ratio is that of medians.
The bare model is given tensors that are normalised already. `normalise` is that step alone, `score` adds the rewards of one spec,
all in this process. The pool's time includes everything: object store, request, preprocessing, encoding, rewards, and the answer.
Requests are sent ahead, as trials do, so what the client does costs the server nothing where there is a second core.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import logging
import statistics
import time
from collections.abc import Callable

import numpy as np
import ray
import torch

from vlm_rm_sweeps.process_defaults import prepare_ray
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.open_clip_models import embedded_sizes
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import NAMESPACE, PoolConfig, RewardPool, await_pool, start_pool

FRAMES = 2_048
ROUNDS = 5
MICRO_BATCH = 64
SPEC = RewardSpec(("pole vertically upright on top of the cart",), ("pole and cart",), 0.5)


def seconds(action: Callable[[], object]) -> float:
    """Measure how many seconds one call of `action` takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> None:
    """Print frames per second of bare model and pool, for each embedded model and request size."""
    torch.set_num_threads(1)
    prepare_ray()
    ray.init(num_cpus=2, namespace=NAMESPACE, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    print("model            request   bare encode_image   us a frame: bare  normalise   score    pool   pool / bare")
    for size in embedded_sizes():
        model_id = f"embedded/{size}"
        reward_model = ClipRewardModel(model_id)
        reward_model.load(micro_batch=MICRO_BATCH)
        edge = reward_model.frame_format.size
        frames = np.random.default_rng(0).integers(0, 256, (FRAMES, edge, edge, 3), np.uint8)
        pixels = reward_model.source.preprocessing(frames)
        config = PoolConfig.of("benchmark", reward_model, micro_batch=MICRO_BATCH)
        handles = start_pool(config, reward_model)
        await_pool(config, handles, [SPEC])
        pool = RewardPool(config, handles)

        @torch.inference_mode()
        def bare(model: torch.nn.Module = reward_model.network, pixels: torch.Tensor = pixels) -> None:
            for chunk in pixels.split(MICRO_BATCH):
                model.encode_image(chunk)  # type: ignore[operator]

        inputs = torch.empty_like(pixels[:MICRO_BATCH])

        @torch.inference_mode()
        def normalise(
            reward_model: ClipRewardModel = reward_model, frames: np.ndarray = frames, inputs: torch.Tensor = inputs
        ) -> None:
            for start in range(0, FRAMES, MICRO_BATCH):
                reward_model.source.preprocessing.write(frames[start : start + MICRO_BATCH], inputs)

        for request in (64, 512):
            chunks = np.split(frames, FRAMES // request)

            def pooled(pool: RewardPool = pool, chunks: list[np.ndarray] = chunks) -> None:
                for pending in [pool.submit(chunk, [SPEC]) for chunk in chunks]:
                    pending.result()

            def scored(reward_model: ClipRewardModel = reward_model, chunks: list[np.ndarray] = chunks) -> None:
                for chunk in chunks:
                    reward_model.score(chunk, [SPEC])

            actions = (bare, normalise, scored, pooled)
            for action in actions:
                action()
            turns = [[seconds(action) for action in actions] for _ in range(ROUNDS)]
            of_bare, *others = (statistics.median(column) * 1e6 / FRAMES for column in zip(*turns, strict=True))
            print(
                f"{model_id:<16} {request:>7}   {1e6 / of_bare:>13.0f} fps   {of_bare:>16.0f}  "
                f"{others[0]:>9.1f}  {others[1]:>6.0f}  {others[2]:>6.0f}   {of_bare / others[2]:>11.2f}",
                flush=True,
            )
        for handle in handles:
            ray.kill(handle)
    ray.shutdown()


if __name__ == "__main__":
    main()
