"""Speed and fidelity of each backend and precision that a pool offers, compared with torch in fp32 on the same frames.

Run `make bench`, or `.venv/bin/python benchmarks/precision.py`; `--json FILE` writes the figures to a file, too. Speed is that of
scoring frames in this process, with one thread; all take turns. Fidelity is the largest deviation of a reward from that of torch in
fp32, beside the rewards' own spread (standard deviation), and the rank correlation (Spearman's) of both. It is measured on three kinds
of frames of the task: *random* states, *landscape*, where one state variable varies in small steps, and those *visited* by random
actions. Backends whose packages are not installed are left out.

`--int8` adds what no pool offers: ONNX Runtime's static quantization to 8-bit integers, one scale for each output channel of the
weights. Its scales of activations come from the first micro-batches, which are of random states.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import torch
from measuring import Cost, parser_of, take_turns, write_figures
from random_weights import clip_model
from scipy.stats import spearmanr

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import INFO_FRAME
from vlm_rm_sweeps.rewards.backends import BACKENDS, Backend, ImageTower, export
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.reward_model import BackendName, Precision, RewardSpec
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import render_frame
from vlm_rm_sweeps.tasks.task import Task

Way = tuple[BackendName, Precision]
REFERENCE = "torch fp32"
INT8: BackendName = "int8"  # type: ignore[assignment]  # beside those that pools offer
CALIBRATION = 4
"""Micro-batches from which the scales of activations are computed."""


@dataclass(frozen=True)
class Fidelity:
    """How far rewards are from those of torch in fp32.

    Attributes:
        deviation: Largest absolute difference of a frame's reward.
        spread: Standard deviation of the rewards of torch in fp32.
        rank_correlation: Spearman's, of both rewards.
    """

    deviation: float
    spread: float
    rank_correlation: float


class Int8Encoder:
    """An image tower in 8-bit integers, once it has seen enough frames; until then it is one in fp32.

    Args:
        network: open_clip's model, loaded.
        example: An input of the shape that it will get.
    """

    def __init__(self, network: Any, example: torch.Tensor) -> None:
        self._tower, self._example = ImageTower(network).eval(), example
        self._seen: list[np.ndarray] = []
        self._session: Any = None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Encode preprocessed frames (micro-batch, 3, size, size) as features (micro-batch, D)."""
        array = inputs.contiguous().numpy()
        if self._session is None:
            self._seen.append(array)
            if len(self._seen) < CALIBRATION:
                features: torch.Tensor = self._tower(inputs)
                return features
            self._session = self._quantized()
        (encoded,) = self._session.run(None, {"inputs": array})
        return torch.from_numpy(encoded)

    def _quantized(self) -> Any:
        import onnxruntime
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):
            def __init__(self, batches: list[np.ndarray]) -> None:
                self._left = iter(batches)

            def get_next(self) -> dict[str, np.ndarray] | None:
                batch = next(self._left, None)
                return None if batch is None else {"inputs": batch}

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        with TemporaryDirectory() as folder:
            whole, prepared, quantized = (str(Path(folder) / f"{name}.onnx") for name in ("whole", "prepared", "quantized"))
            export(self._tower, self._example, Path(whole))
            quant_pre_process(whole, prepared)
            reader = Reader(self._seen)
            quantize_static(
                prepared, quantized, reader, per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
            )
            return onnxruntime.InferenceSession(quantized, options, providers=["CPUExecutionProvider"])


def kinds_of_frames(task: Task, frame_format: FrameFormat, count: int) -> dict[str, np.ndarray]:
    """Draw frames of a task.

    Args:
        task: A task with a state space.
        frame_format: The model's.
        count: Number of frames of each kind.

    Returns:
        uint8 (count, H, W, 3) by kind.
    """
    space, native = task.require_states(), task.make_native_env(task.rendering(), frame_format)
    native.reset(seed=0)
    rng, variable = np.random.default_rng(0), space.variables[0]

    def random_states() -> Iterator[np.ndarray]:
        for _ in range(count):
            space.sample(native, rng)
            yield render_frame(native, frame_format)

    def landscape() -> Iterator[np.ndarray]:
        for value in np.linspace(variable.low, variable.high, count):
            space.place(native, {variable.name: float(value)})
            yield render_frame(native, frame_format)

    def visited() -> Iterator[np.ndarray]:
        env = task.make_env(frame_format)
        env.action_space.seed(0)
        for step in range(count):
            if step % task.episode_steps == 0:
                env.reset(seed=step)
            yield env.step(env.action_space.sample())[-1][INFO_FRAME]
        env.close()

    return {"random": np.stack([*random_states()]), "landscape": np.stack([*landscape()]), "visited": np.stack([*visited()])}


def fidelity(rewards: np.ndarray, reference: np.ndarray) -> Fidelity:
    """Compare rewards (N,) with reference rewards (N,) of the same frames."""
    return Fidelity(
        deviation=float(np.abs(rewards - reference).max()),
        spread=float(reference.std()),
        rank_correlation=float(spearmanr(rewards, reference).statistic),
    )


def ways(options: argparse.Namespace) -> list[Way]:
    """List backends in fp32, and torch in each precision, the reference first."""
    return [
        *((backend, "fp32") for backend in (*options.backends, *([INT8] if options.int8 else []))),
        *(("torch", each) for each in options.precisions if each != "fp32"),
    ]


def load(model_id: str, way: Way, micro_batch: int) -> ClipRewardModel | None:
    """Load a model; None if the backend's package is not installed."""
    model, (backend, precision) = clip_model(model_id), way
    try:
        model.use_backend(backend, "cpu", precision)
    except UserError as error:
        print(error)
        return None
    model.load(precision=precision, micro_batch=micro_batch)
    return model


def compare(model_id: str, options: argparse.Namespace) -> tuple[dict[str, Cost], dict[str, dict[str, Fidelity]]]:
    """Compare the backends and precisions of one model.

    Args:
        model_id: As of `clip_model`.
        options: The command line.

    Returns:
        The cost of scoring `--frames` frames by backend and precision, and the fidelity by kind of frames, backend and precision.
    """
    task = find_task(options.task)
    spec = RewardSpec((task.goal_prompt,), (task.baseline_prompt,), 0.5)
    models: dict[str, ClipRewardModel] = {}
    for way in ways(options):
        model = load(model_id, way, options.micro_batch)
        if model is not None:
            models[" ".join(way)] = model
    frames = kinds_of_frames(task, models[REFERENCE].frame_format, options.frames)
    contestants = {name: functools.partial(model.score, frames["random"], [spec]) for name, model in models.items()}
    speeds = take_turns(contestants, options.rounds)
    found: dict[str, dict[str, Fidelity]] = {}
    for kind, drawn in frames.items():
        rewards = {name: model.score(drawn, [spec])[:, 0] for name, model in models.items()}
        found[kind] = {name: fidelity(each, rewards[REFERENCE]) for name, each in rewards.items() if name != REFERENCE}
    return speeds, found


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--task", default="cartpole-upright", help="a task with a state space")
    parser.add_argument("--models", nargs="+", default=["embedded/tiny", "embedded/large"])
    parser.add_argument(
        "--backends", nargs="+", choices=get_args(BackendName), default=get_args(BackendName), help="torch first"
    )
    parser.add_argument("--precisions", nargs="+", choices=get_args(Precision), default=get_args(Precision))
    parser.add_argument("--int8", action="store_true", help="measure 8-bit integers, too")
    parser.add_argument("--frames", type=int, default=256, help="frames of each kind, and in a turn")
    parser.add_argument("--micro-batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    BACKENDS[INT8] = Backend(Int8Encoder, packages=("onnxruntime", "onnx"), on_cpu_in_fp32_only=True)
    print(
        f"{'model':18}{'way':17}{'frames/s':>9}{'CPU ms/frame':>14}   {'frames':11}{'deviation':>10}{'spread':>9}{'ranks':>9}"
    )
    results = {}
    for model_id in options.models:
        speeds, found = compare(model_id, options)
        results[model_id] = {"turns": speeds, "fidelity": found}
        for name, cost in speeds.items():
            speed = f"{options.frames / cost.seconds:9.0f}{1e3 * cost.cpu_seconds / options.frames:14.2f}"
            print(f"{model_id:18}{name:17}{speed}", end="" if name != REFERENCE else "\n")
            for index, (kind, by_way) in enumerate(found.items() if name != REFERENCE else ()):
                each = by_way[name]
                figures = f"{each.deviation:10.4f}{each.spread:9.4f}{each.rank_correlation:9.4f}"
                print(f"{'' if index == 0 else ' ' * 58}   {kind:11}{figures}", flush=True)
    write_figures(options, results)


if __name__ == "__main__":
    main()
