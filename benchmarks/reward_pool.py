"""Frames per second through the reward pool, compared with the same model's bare `encode_image` on the same frames.

Run `make bench`, or `.venv/bin/python benchmarks/reward_pool.py`. It prints one row for each embedded model and request size.
Pool and bare model take turns in one run, each with one thread, and the ratio is that of their medians. The pool's time
includes everything: object store, request, preprocessing, encoding, rewards for one spec, and the answer.
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
    print("model            request   bare encode_image   pool        pool / bare")
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

        for request in (64, 512):
            chunks = np.split(frames, FRAMES // request)

            def pooled(pool: RewardPool = pool, chunks: list[np.ndarray] = chunks) -> None:
                for pending in [pool.submit(chunk, [SPEC]) for chunk in chunks]:
                    pending.result()

            bare()
            pooled()
            times = [(seconds(bare), seconds(pooled)) for _ in range(ROUNDS)]
            bare_rate, pool_rate = (FRAMES / statistics.median(column) for column in zip(*times, strict=True))
            print(
                f"{model_id:<16} {request:>7}   {bare_rate:>9.0f} fps      {pool_rate:>6.0f} fps   {pool_rate / bare_rate:>8.2f}"
            )
        for handle in handles:
            ray.kill(handle)
    ray.shutdown()


if __name__ == "__main__":
    main()
