"""What frames cost on their way to a reward server, and what compressing them would save.

    .venv/bin/python benchmarks/transport.py

Trials send frames as uint8, one byte for each colour of a pixel. A request is what eight environments render in eight steps of random
actions. For each task and size the table has the kB of a frame and, for each way to send it, the share of these bytes that is left and
the CPU ms for one frame of packing and of unpacking. All ways keep each pixel, so rewards do not change:

- `float32`: frames as the image tower takes them, already normalised;
- `zlib`: the request, compressed at level 1;
- `zlib of changes`: the same of each frame's difference from the one before in its environment, modulo 256.

`object store` is a request's way through Ray's shared memory on one machine, without a network. The last column is the link in Gbit/s
at which compression begins to cost more time than it saves: a request that has a faster link for itself arrives sooner as it is.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import ray
from measuring import Cost, parser_of, quiet_ray, take_turns, write_figures

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import render_frame

TASKS = ("cartpole-upright", "mountaincar-summit", "humanoid-kneeling")
SIZES = (64, 224)
ENVS, STEPS = 8, 8
LEVEL = 1


@dataclass(frozen=True)
class Row:
    """One way to send the frames of one task.

    Attributes:
        task: The task.
        pixels: Edge of a frame.
        way: How frames are sent.
        share: Bytes that are sent, as a share of the frame's.
        pack: Cost of packing, for one frame.
        unpack: Cost of unpacking, for one frame.
        gbits: Speed of the link, in Gbit/s, from which on sending frames as they are takes less time; None if it always does.
    """

    task: str
    pixels: int
    way: str
    share: float
    pack: Cost
    unpack: Cost
    gbits: float | None


@dataclass(frozen=True)
class Way:
    """How a request is packed, and unpacked to the same frames."""

    pack: Callable[[np.ndarray], bytes]
    unpack: Callable[[bytes, tuple[int, ...]], np.ndarray]


def _as_floats(frames: np.ndarray) -> bytes:
    return (frames.astype(np.float32) / 255).tobytes()


def _from_floats(packed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return (np.frombuffer(packed, np.float32).reshape(shape) * 255).round().astype(np.uint8)


def _zipped(frames: np.ndarray) -> bytes:
    return zlib.compress(frames.tobytes(), LEVEL)


def _unzipped(packed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)


def _changes_zipped(frames: np.ndarray) -> bytes:
    changes = frames.copy()
    changes[1:] -= frames[:-1]  # uint8 wraps around
    return _zipped(changes)


def _changes_unzipped(packed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return np.cumsum(_unzipped(packed, shape), axis=0, dtype=np.uint8)


WAYS = {
    "float32": Way(_as_floats, _from_floats),
    "zlib": Way(_zipped, _unzipped),
    "zlib of changes": Way(_changes_zipped, _changes_unzipped),
}


def request_of(task: str, pixels: int) -> np.ndarray:
    """Render what eight environments show in eight steps of random actions, in the task's first textures and camera.

    Args:
        task: Name of the task.
        pixels: Edge of a frame.

    Returns:
        The frames, uint8 (steps, environments, pixels, pixels, 3).
    """
    found = find_task(task)
    frame_format = FrameFormat(pixels)
    frames = np.empty((STEPS, ENVS, pixels, pixels, 3), np.uint8)
    for column in range(ENVS):
        env = found.make_env(frame_format, found.rendering())
        env.reset(seed=column)
        env.action_space.seed(column)
        for step in range(STEPS):
            env.step(env.action_space.sample())
            frames[step, column] = render_frame(env.unwrapped, frame_format)
        env.close()
    return frames


def compare(task: str, pixels: int, rounds: int) -> list[Row]:
    """Measure all ways for the frames of one task.

    Args:
        task: Name of the task.
        pixels: Edge of a frame.
        rounds: Turns of each way.

    Returns:
        A row for each way, the object store's last.
    """
    frames = request_of(task, pixels)
    packed = {name: way.pack(frames) for name, way in WAYS.items()}
    for name, way in WAYS.items():
        assert np.array_equal(way.unpack(packed[name], frames.shape), frames), name
    turns: dict[str, Callable[[], object]] = {}
    for name, way in WAYS.items():
        turns[f"pack {name}"] = partial(way.pack, frames)
        turns[f"unpack {name}"] = partial(way.unpack, packed[name], frames.shape)
    held = ray.put(frames)
    turns["put"] = lambda: ray.put(frames)
    # A copy, as the server's normalisation reads each pixel.
    turns["get"] = lambda: ray.get(held).copy()
    costs = {name: _for_one(cost) for name, cost in take_turns(turns, rounds).items()}
    rows = []
    for name in WAYS:
        share, pack, unpack = len(packed[name]) / frames.nbytes, costs[f"pack {name}"], costs[f"unpack {name}"]
        saved_bits = 8 * (1 - share) * frames.nbytes / (ENVS * STEPS)
        gbits = saved_bits / (pack.seconds + unpack.seconds) / 1e9 if share < 1 else None
        rows.append(Row(task, pixels, name, share, pack, unpack, gbits))
    return [*rows, Row(task, pixels, "object store", 1.0, costs["put"], costs["get"], None)]


def _for_one(cost: Cost) -> Cost:
    return Cost(cost.seconds / (ENVS * STEPS), cost.cpu_seconds / (ENVS * STEPS))


def main() -> None:
    """Print the table and write it as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="names of tasks")
    parser.add_argument("--pixels", nargs="+", type=int, default=list(SIZES), help="edges of frames")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each way")
    options = parser.parse_args()
    print(f"{'task':20}{'pixels':>7}{'kB':>8}  {'way':17}{'share':>7}{'pack':>11}{'unpack':>11}{'pays below':>16}")
    rows = []
    with quiet_ray():
        for task in options.tasks:
            for pixels in options.pixels:
                for row in compare(task, pixels, options.rounds):
                    pack, unpack = 1e3 * row.pack.cpu_seconds, 1e3 * row.unpack.cpu_seconds
                    pays = f"{row.gbits:9.2f} Gbit/s" if row.gbits is not None else ""
                    size = pixels * pixels * 3 / 1e3
                    print(
                        f"{task:20}{pixels:7}{size:8.1f}  {row.way:17}{row.share:7.3f}{pack:8.3f} ms{unpack:8.3f} ms{pays:>16}",
                        flush=True,
                    )
                    rows.append(row)
    write_figures(options, {"rows": rows})


if __name__ == "__main__":
    main()
