"""Frames per second through the reward pool, compared with the same model's bare `encode_image` on the same frames.

Run `make bench`, or `.venv/bin/python benchmarks/reward_pool.py`; `--json FILE` writes the figures to a file, too. It prints one row
for each model and request size. Pool and bare model take turns in one run, each with one thread, and the ratio is that of their
medians. The pool's time includes everything: object store, request, preprocessing, encoding, rewards for one spec, and the answer.
Its CPU time is that of client and server. This process keeps the memory that it frees, as servers do. The bare model is given tensors
that are normalised already; *in the process* is the reward model's own `score` in requests of the largest size, without a pool. A model
that is named by an architecture of open_clip, such as ViT-B-32, has random weights.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import functools

import numpy as np
import ray
import torch
from measuring import Cost, parser_of, process_of, quiet_ray, take_turns, write_figures
from random_weights import clip_model

from vlm_rm_sweeps.process_defaults import keep_freed_memory
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.open_clip_models import embedded_models
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool, await_pool, start_pool

MICRO_BATCH = 64
SPEC = RewardSpec(("pole vertically upright on top of the cart",), ("pole and cart",), 0.5)
BARE = "bare encode_image"
IN_PROCESS = "in the process"


@torch.inference_mode()
def encode(network: torch.nn.Module, pixels: torch.Tensor) -> None:
    """Encode preprocessed frames (N, 3, H, W) in micro-batches, and do nothing else."""
    for chunk in pixels.split(MICRO_BATCH):
        network.encode_image(chunk)  # type: ignore[operator]


def score_here(model: ClipRewardModel, frames: np.ndarray, request: int) -> None:
    """Score frames, uint8 (N, H, W, 3), in this process, `request` frames at a time."""
    for start in range(0, len(frames), request):
        model.score(frames[start : start + request], [SPEC])


def score(pool: RewardPool, frames: np.ndarray, request: int) -> None:
    """Score frames, uint8 (N, H, W, 3), in requests of `request` frames."""
    for pending in [pool.submit(frames[start : start + request], [SPEC]) for start in range(0, len(frames), request)]:
        pending.result()


def compare(model_id: str, options: argparse.Namespace) -> dict[str, Cost]:
    """Let the bare model and the pool encode the same frames, in turns.

    Args:
        model_id: The model.
        options: The command line.

    Returns:
        The cost of all frames: of the bare model, of the reward model, and of the pool by size of the requests.
    """
    model = clip_model(model_id)
    model.load(micro_batch=MICRO_BATCH)
    edge = model.frame_format.size
    frames = np.random.default_rng(0).integers(0, 256, (options.frames, edge, edge, 3), np.uint8)
    config = PoolConfig.of("benchmark", model, micro_batch=MICRO_BATCH)
    servers = start_pool(config, model)
    await_pool(config, servers, [SPEC])
    pool, helpers = RewardPool(config, servers), [process_of(server) for server in servers]
    pooled = {str(request): functools.partial(score, pool, frames, request) for request in options.requests}
    bare = functools.partial(encode, model.network, model.source.preprocessing(frames))
    here = functools.partial(score_here, model, frames, max(options.requests))
    costs = take_turns({BARE: bare, IN_PROCESS: here} | pooled, options.rounds, dict.fromkeys(pooled, helpers))
    for server in servers:
        ray.kill(server)
    return costs


def main() -> None:
    """Print frames per second of bare model and pool, and write the figures as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", default=embedded_models(), help="embedded/<size>, or architectures of open_clip")
    parser.add_argument("--frames", type=int, default=2_048, help="frames in a turn")
    parser.add_argument("--requests", type=int, nargs="+", default=[64, 512], help="frames in a request")
    parser.add_argument("--rounds", type=int, default=5, help="turns of bare model and pool")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # else the pool would be ahead of the bare model by that
    print(f"model            request   {BARE}   {IN_PROCESS}   pool        pool / bare")
    results = {}
    with quiet_ray():
        for model_id in options.models:
            results[model_id] = compare(model_id, options)
            rates = {name: options.frames / cost.seconds for name, cost in results[model_id].items()}
            for request in map(str, options.requests):
                bare, here, pooled = rates[BARE], rates[IN_PROCESS], rates[request]
                speeds = f"{bare:>9.0f} fps      {here:>6.0f} fps      {pooled:>6.0f} fps"
                print(f"{model_id:<16} {request:>7}   {speeds}   {pooled / bare:>8.2f}", flush=True)
    write_figures(options, results)


if __name__ == "__main__":
    main()
