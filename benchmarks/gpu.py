"""Measures a machine with a GPU: encoding by CLIP models, drawing through EGL, and the paper's humanoid recipe.

    .venv/bin/python benchmarks/gpu.py --json gpu.json                 everything (about 20 minutes on one card)
    .venv/bin/python benchmarks/gpu.py --models ViT-B-32 --steps 0     one model, without training
    .venv/bin/python benchmarks/gpu.py --device cpu --models embedded/tiny --modes eager --frames 2 --steps 64

Models have random weights, so nothing is downloaded. *Encoding* is the image tower alone, on images that are on the card already, in
each precision and as torch runs it by default (`eager`), compiled (`compile`), and compiled with CUDA graphs (`graphs`). The share of
the peak (model FLOPs utilisation) is the operations of open_clip's architecture, counted without weights, per second, divided by the
card's peak for dense fp16 and bf16; `--peak-tflops` names that of a card which is not in `PEAK_TFLOPS`. *Pool* is the whole reward
model as a reward server runs it, with frames that come from the CPU. *Drawing* is the humanoid at 224 pixels, in this process.
*Training* is `sweeps/paper_humanoid_kneeling.yaml` with one server for some thousand steps, and no warm-up: how much slower than
*pool* it is tells what the trial takes, and not the encoder. With `--learner gpu` the trial computes its updates on the card, too.

Without a GPU the script says so and ends with status 2, unless `--device cpu` is given, which tries the script and not the speed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import ray
import torch
from measuring import parser_of, quiet_ray, take_turns, write_figures
from random_weights import clip_model, image_gflops, source_of
from trials import RealTrial, recipe, spec_of

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.open_clip_models import without_missing_weights_warning
from vlm_rm_sweeps.rewards.reward_model import Precision
from vlm_rm_sweeps.serving.pool import PoolConfig, await_pool, start_pool
from vlm_rm_sweeps.tasks.opengl import choose_backend, draws_on_gpu
from vlm_rm_sweeps.tasks.rendering import Profile, render_frame

PAPER = "paper_humanoid_kneeling"
MODELS = ("ViT-B-32", "ViT-L-14", "ViT-H-14", "ViT-bigG-14")
PEAK_TFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "V100": 125.0,
    "T4": 65.0,
}
"""Data sheets' peak of dense fp16 by a part of the card's name, the more precise names first."""
COMPILE_MODES: dict[str, dict[str, Any]] = {"compile": {}, "graphs": {"mode": "reduce-overhead"}}
MODES = ("eager", *COMPILE_MODES)
TRIAL_GPUS = 0.25
"""Share of the card that is reserved for a trial that learns on it."""


@dataclass(frozen=True)
class Encoding:
    """Speed of one image tower.

    Attributes:
        model: The architecture.
        precision: Of the weights.
        mode: One of `MODES`, or `pool` for the whole reward model.
        frames_per_second: Frames per second.
        tflops: Operations per second, in units of 10^12.
        peak_share: The same as a share of the card's peak; None if that is unknown.
        gigabytes: Most memory of the card that was in use; 0 on a CPU.
    """

    model: str
    precision: Precision
    mode: str
    frames_per_second: float
    tflops: float
    peak_share: float | None
    gigabytes: float


def require_device(device: str) -> None:
    """Refuse a device that is not there.

    Args:
        device: torch device.

    Raises:
        UserError: It is a GPU, and torch finds none.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise UserError(
            f"--device {device}: torch finds no GPU here. Run this on a machine with one, or try the script with --device cpu "
            "--models embedded/tiny --modes eager"
        )


def known_peak(options: argparse.Namespace) -> float | None:
    """Return the card's peak in TFLOP/s: the one given, or else that of its data sheet; None if unknown."""
    if options.peak_tflops or options.device == "cpu":
        return options.peak_tflops
    name = torch.cuda.get_device_name(options.device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


def encodings(name: str, options: argparse.Namespace) -> Iterator[Encoding]:
    """Measure one model in each precision and mode.

    Args:
        name: As of `clip_model`.
        options: The command line.

    Yields:
        The speeds.
    """
    gflops, peak = image_gflops(name), known_peak(options)
    for precision in options.precisions:
        model = clip_model(name)
        with without_missing_weights_warning():
            model.load(options.device, precision, options.micro_batch)
        size = model.source.preprocessing.size
        images = torch.zeros(options.micro_batch, 3, size, size, device=options.device, dtype=model._dtype)
        images = images.contiguous(memory_format=torch.channels_last)
        frames = np.random.default_rng(0).integers(0, 256, (options.micro_batch, size, size, 3), np.uint8)
        runs = {mode: _encoder(model.network, mode, images) for mode in options.modes}
        for mode, run in (runs | {"pool": lambda model=model, frames=frames: model.encode_frames(frames)}).items():
            rate = options.micro_batch / _seconds(run, options)
            tflops = rate * gflops / 1e3
            yield Encoding(name, precision, mode, rate, tflops, tflops / peak if peak else None, _gigabytes(options.device))
        del model, runs
        _forget(options.device)


def _encoder(network: Any, mode: str, images: torch.Tensor) -> Callable[[], object]:
    encode = network.encode_image if mode == "eager" else torch.compile(network.encode_image, **COMPILE_MODES[mode])

    @torch.inference_mode()
    def run() -> None:
        encode(images)

    return run


def _seconds(run: Callable[[], object], options: argparse.Namespace) -> float:
    """Return the seconds of one call, the median of several turns, each until the card has done its work."""

    def turn() -> None:
        for _ in range(options.repetitions):
            run()
        if options.device != "cpu":
            torch.cuda.synchronize(options.device)

    return take_turns({"": turn}, options.rounds)[""].seconds / options.repetitions


def _gigabytes(device: str) -> float:
    return 0.0 if device == "cpu" else torch.cuda.max_memory_allocated(device) / 1e9


def _forget(device: str) -> None:
    torch.compiler.reset()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def drawing(options: argparse.Namespace) -> dict[str, float]:
    """Draw the humanoid at 224 pixels with each profile.

    Args:
        options: The command line.

    Returns:
        Frames per second by profile.
    """
    task, frame_format = recipe(PAPER)[0], FrameFormat(224)
    found = {}
    for profile in get_args(Profile):
        env: Any = task.make_native_env(task.rendering(profile=profile), frame_format)
        env.reset(seed=0)

        def draw(env: Any = env) -> None:
            for _ in range(options.frames):
                render_frame(env, frame_format)

        found[profile] = options.frames / take_turns({"": draw}, options.rounds)[""].seconds
        env.close()
    return found


def training(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Train the paper's humanoid for `--steps` steps.

    Args:
        name: The reward model.
        options: The command line.

    Returns:
        Environment steps, seconds, and steps per second.
    """
    on_gpu, model = options.device != "cpu", clip_model(name)
    task = recipe(PAPER)[0]
    changes = {} if on_gpu else {"envs": 2, "rollout_steps": 16, "batch": 32, "buffer": 1_000}
    precision = "fp16" if on_gpu else "fp32"  # on a CPU, fp16 is many times slower
    config = PoolConfig.of(
        "gpu", model, micro_batch=options.micro_batch, precision=precision, gpus=1 - TRIAL_GPUS if on_gpu else 0
    )
    with quiet_ray(cpus=4):
        servers = start_pool(config, model)
        await_pool(config, servers, [spec_of(task)])
        start: Any = ray.remote(num_cpus=1, num_gpus=TRIAL_GPUS if options.learner == "gpu" else 0)(RealTrial)
        profile = "full" if on_gpu else "fast"
        learns_on_gpu = options.learner == "gpu"
        trial = start.remote(PAPER, config, rollouts=1, profile=profile, learns_on_gpu=learns_on_gpu, **changes)
        ray.get(trial.train.remote())  # not counted: everything is used for the first time
        steps, started = 0, time.perf_counter()
        while steps < options.steps:
            steps += ray.get(trial.train.remote())[0]
        seconds = time.perf_counter() - started
    return {"steps": steps, "seconds": seconds, "steps_per_second": steps / seconds}


def print_encoding(each: Encoding) -> None:
    """Print a row of the first table."""
    share = "-" if each.peak_share is None else f"{each.peak_share:.0%}"
    print(
        f"{each.model:16}{each.precision:10}{each.mode:9}{each.frames_per_second:10.0f}{each.tflops:12.2f}{share:>9}"
        f"{each.gigabytes:8.1f}",
        flush=True,
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--device", default="cuda", help="torch device, such as cuda or cuda:1; cpu tries the script")
    parser.add_argument("--models", nargs="+", default=MODELS, help="architectures of open_clip, or embedded/<size>")
    parser.add_argument("--precisions", nargs="+", choices=get_args(Precision), default=("fp16", "bf16"))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--micro-batch", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=5, help="micro-batches in a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--frames", type=int, default=100, help="frames in a turn of drawing")
    parser.add_argument("--steps", type=int, default=6_400, help="environment steps of training; 0 for none")
    parser.add_argument("--learner", choices=("cpu", "gpu"), default="cpu", help="where the trial computes its updates")
    parser.add_argument("--peak-tflops", type=float, help="the card's peak for dense fp16")
    options = parser.parse_args()
    if options.learner == "gpu" and options.device == "cpu":
        parser.error("--learner gpu needs a GPU, and --device is cpu")
    return options


def main() -> None:
    """Print the tables, and write them as JSON."""
    options = arguments()
    try:
        require_device(options.device)
        for name in options.models:
            source_of(name)
    except UserError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{'model':16}{'precision':10}{'mode':9}{'frames/s':>10}{'TFLOP/s':>12}{'of peak':>9}{'GB':>8}")
    found: list[Encoding] = []
    for name in options.models:
        for each in encodings(name, options):
            print_encoding(each)
            found.append(each)
    print(f"\nOpenGL by {choose_backend()}, {'on a GPU' if draws_on_gpu() else 'in software'}")
    drawn = drawing(options)
    print("humanoid, frames/s at 224 x 224: " + ", ".join(f"{profile} profile {rate:.0f}" for profile, rate in drawn.items()))
    trained: dict[str, dict[str, float]] = {}
    for name in options.models if options.steps else ():
        trained[name] = training(name, options)
        print(f"training with {name}: {trained[name]['steps_per_second']:.0f} steps/s", flush=True)
    write_figures(options, {"encoding": found, "drawing_frames_per_second": drawn, "training": trained})


if __name__ == "__main__":
    main()
