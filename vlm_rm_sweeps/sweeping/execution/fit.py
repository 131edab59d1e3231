"""Estimates what a sweep needs, and whether it fits this machine, from short measurements of its parts: `vlm-rm fit`.

The model is simple enough to be read. A trial makes a step in the time of training and drawing, while the frames of the steps before
are encoded; a step takes the longer of the two. Steps before the first update take as long as those of an evaluation. Trials run at
once as far as their reservations allow, in the order of the sweep. All processes share the cores: so many steps are made as the
slowest of trials, servers and cores allows.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vlm_rm_sweeps.machine.resources import GB
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.trial import UNTRAINED, Trial
from vlm_rm_sweeps.sweeping.execution.fit_schedule import NOTHING, Part, Places, Schedule, Work, play
from vlm_rm_sweeps.sweeping.execution.trial_videos import CPUS_PER_RECORDER
from vlm_rm_sweeps.training.checkpoints import KEPT, KEPT_FOR_OTHERS

DRIVER_BYTES = 1.5 * GB
"""Assumed: the driver with Ray, RLlib and MLflow, and Ray's own processes."""
SERVER_BYTES = 0.6 * GB
"""Assumed: a reward server with torch and Ray, without its model."""
OTHERS_CORES = 0.2
"""Assumed: cores that Ray's own processes use."""
START_S = 25.0
"""Assumed: CPU seconds until the first trial steps, and after the last one: Ray, imports, models, tables."""
TRIAL_S = 0.3
"""Assumed: CPU seconds to set up a trial in a process that is there already (measured by `benchmarks/startup.py`)."""
VIDEO_S = 3.4
"""Assumed: CPU seconds to record a trial's videos (measured for CartPole, with the start of the process that records them)."""
VIDEO_BYTES, MLFLOW_BYTES = 0.25e6, 1.5e6
"""Assumed: a trial's videos (0.07 to 0.11 MB for CartPole, 0.20 to 0.25 MB for the humanoid), and MLflow's database."""
ASSUMED = (
    f"{DRIVER_BYTES / GB:g} GB for the driver and Ray, {SERVER_BYTES / GB:g} GB for each server beside its model, "
    f"{START_S:g} CPU seconds to start, {TRIAL_S:g} for each trial and {VIDEO_S:g} for its videos, "
    "the present load of this machine. Not in it: retries, `epic_states`, audits, judges, frames in flight, "
    "servers beyond the least of `pool.servers`"
)


@dataclass(frozen=True)
class Measured:
    """What was measured on this machine.

    Attributes:
        training: A training step of the environment with its share of updates, not drawn.
        acting: A step of an evaluation, which has no updates, not drawn.
        drawing: What a step takes longer if it is drawn, by model id.
        encoding: One frame, by model id: the time of the model in its server, and the CPU time of server and client.
        model_bytes: Memory of a loaded model, by model id; on a GPU, of its weights. Judges, which may cost money, are not measured.
        trial_bytes: Memory of a trial's process, without its replay buffer.
        transition_bytes: Memory of one transition in the replay buffer; 0 if there is none.
        policy_bytes: Size of the policy's weights.
        state_bytes: Size of what else a trial needs to go on, without the transitions: critics, the optimisers' moments, and so on.
        other_cores: Cores that other programs use.
        crowded: Speed of a core while all of them work, as a part of its speed alone: they share caches and memory.
    """

    training: Work
    acting: Work
    drawing: Mapping[str, Work]
    encoding: Mapping[str, Work]
    model_bytes: Mapping[str, float]
    trial_bytes: float
    transition_bytes: float
    policy_bytes: float
    state_bytes: float
    other_cores: float
    crowded: float


@dataclass(frozen=True)
class Machine:
    """What this machine has: CPU cores, GPUs, free bytes of memory and of the disk of the results."""

    cores: float
    gpus: int
    memory: float
    disk: float


@dataclass(frozen=True)
class Fit:
    """What a sweep needs.

    Attributes:
        trials_at_once: Trials that run at the same time.
        steps_per_second: Environment steps of training in a second, of all trials, from the first one's start to the last one's end:
            evaluations, the starts of trials and their videos take some of that time.
        bound_by: What limits that: `trials`, `servers` or `cores`.
        hours: Time from start to end.
        gpu_hours: That, times the GPUs that are reserved.
        memory: Bytes by part; the total is their sum.
        disk: Bytes in the results folder.
        problems: Why it does not fit; empty if it fits.
    """

    trials_at_once: int
    steps_per_second: float
    bound_by: str
    hours: float
    gpu_hours: float
    memory: Mapping[str, float]
    disk: float
    problems: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the estimate as plain data."""
        return asdict(self) | {
            "memory": dict(self.memory),
            "memory_total": sum(self.memory.values()),
            "fits": not self.problems,
        }


def estimate(plan: Plan, measured: Measured, machine: Machine) -> Fit:
    """Estimate what a sweep needs.

    Args:
        plan: The sweep.
        measured: What its parts take on this machine.
        machine: What this machine has.

    Returns:
        The estimate.
    """
    at_once, problems = _trials_at_once(plan, machine)
    schedule = _schedule(plan, measured, machine, at_once)
    seconds = START_S / min(1.0, _free_cores(measured, machine, 1)) + schedule.seconds
    memory = _memory(plan, measured, at_once)
    disk = _disk(plan, measured)
    if sum(memory.values()) > machine.memory:
        problems += (f"memory: {sum(memory.values()) / GB:.1f} GB are needed, {machine.memory / GB:.1f} GB are free",)
    if disk > machine.disk:
        problems += (f"disk: {disk / GB:.1f} GB are needed, {machine.disk / GB:.1f} GB are free",)
    reserved = at_once * plan.sweep.trial.gpus + _reserving_servers(plan) * plan.sweep.pool.gpus
    return Fit(
        trials_at_once=at_once,
        steps_per_second=sum(_trained_steps(plan, trial) for trial in plan.trials) / schedule.trials_s,
        bound_by=schedule.bound_by,
        hours=seconds / 3600,
        gpu_hours=seconds / 3600 * reserved,
        memory=memory,
        disk=disk,
        problems=problems,
    )


def _trials_at_once(plan: Plan, machine: Machine) -> tuple[int, tuple[str, ...]]:
    """Return how many trials Ray places at once, at least 1 for the estimate, and why not even one can be placed."""
    trial, pool = plan.sweep.trial, plan.sweep.pool
    servers = _reserving_servers(plan)
    cpus, gpus = math.floor(machine.cores) - servers * pool.cpus, machine.gpus - servers * pool.gpus
    problems = []
    places = [math.floor(cpus / (trial.cpus + trial.env_runners))]
    if places[0] < 1:
        problems.append(f"cores: a trial reserves {trial.cpus + trial.env_runners:g}, and servers leave {cpus:g}")
    if gpus < 0:
        problems.append(f"GPUs: the servers reserve {servers * pool.gpus:g}, this machine has {machine.gpus}")
    if trial.gpus:
        places.append(math.floor(gpus / trial.gpus))
        if places[1] < 1 and gpus >= 0:
            problems.append(f"GPUs: a trial reserves {trial.gpus:g}, and servers leave {gpus:g}")
    at_once = min(*places, len(plan.trials), plan.sweep.max_concurrent or len(plan.trials))
    return max(1, at_once), tuple(problems)


def _reserving_servers(plan: Plan) -> int:
    """Return how many servers reserve cores or GPUs: the only one of a judge does not."""
    return plan.sweep.pool.servers.min * sum(not model.judges_only for model in plan.models.values())


def _schedule(plan: Plan, measured: Measured, machine: Machine, at_once: int) -> Schedule:
    """Play the sweep through on this machine."""
    pool = plan.sweep.pool
    places = Places(
        trials=at_once,
        recorders=max(1, int(machine.cores // CPUS_PER_RECORDER)),
        servers=pool.servers.min,
        on_cpu=not pool.gpus,
        free_cores=lambda processes: _free_cores(measured, machine, processes),
    )
    video = Part(1, Work(VIDEO_S, VIDEO_S)) if plan.sweep.videos else None
    return play([_parts(plan, measured, trial) for trial in plan.trials], video, places)


def _parts(plan: Plan, measured: Measured, trial: Trial) -> list[Part]:
    """Return what a trial does, one after the other."""
    steps = _trained_steps(plan, trial)
    before_learning = min(steps, getattr(plan.algorithm, "learning_starts", 0))
    drawing = measured.drawing.get(trial.model_id, NOTHING)
    encoding = measured.encoding.get(trial.model_id, NOTHING) / plan.sweep.score_every
    model_id = trial.model_id if encoding.seconds else None
    processes = max(1, plan.sweep.trial.env_runners)
    parts = [
        Part(1, Work(TRIAL_S, TRIAL_S)),
        Part(before_learning + _evaluated_steps(plan, steps), measured.acting + drawing, encoding, model_id, processes),
        Part(steps - before_learning, measured.training + drawing, encoding, model_id, processes),
    ]
    return [part for part in parts if part.units]


def _trained_steps(plan: Plan, trial: Trial) -> int:
    return 0 if trial.model_id == UNTRAINED else plan.trained_steps[0]


def _free_cores(measured: Measured, machine: Machine, processes: int) -> float:
    """Return the cores' worth of work that a number of processes get done in a second, beside other programs."""
    others = measured.other_cores + OTHERS_CORES
    fair = machine.cores * processes / (processes + others)
    free = max(machine.cores - others, fair)
    return float(processes) if processes <= free else max(0.1, free * measured.crowded)


def _evaluated_steps(plan: Plan, steps: int) -> int:
    """Return the steps of all evaluations of a trial."""
    every, result = plan.sweep.trial.evaluation_interval, plan.trained_steps[1]
    times = 1
    if every is not None and steps:
        times = sum(at == steps or at // every > (at - result) // every for at in range(result, steps + 1, result))
    return times * plan.sweep.evaluation_episodes * plan.task.episode_steps


def _memory(plan: Plan, measured: Measured, at_once: int) -> dict[str, float]:
    parts = {"driver and Ray": DRIVER_BYTES, f"{at_once} trials at once": at_once * measured.trial_bytes}
    runners = plan.sweep.trial.env_runners
    if runners:
        parts[f"{runners} env runners of each trial"] = at_once * runners * measured.trial_bytes
    parts["their replay buffers"] = at_once * _buffer_bytes(plan, measured, plan.trained_steps[0])
    for model_id, model in plan.models.items():
        servers = 1 if model.judges_only else plan.sweep.pool.servers.min
        parts[f"{servers} servers of {model_id}"] = servers * (SERVER_BYTES + measured.model_bytes.get(model_id, 0.0))
    return {name: bytes_ for name, bytes_ in parts.items() if bytes_}


def _buffer_bytes(plan: Plan, measured: Measured, steps: int) -> float:
    return min(getattr(plan.algorithm, "buffer", 0), steps) * measured.transition_bytes


def _disk(plan: Plan, measured: Measured) -> float:
    sweep = plan.sweep
    # A checkpoint is written with the first result that is far enough from the one before, and at the end.
    steps, result = plan.trained_steps
    every = result * math.ceil(sweep.checkpoint_every / result)
    kept = KEPT + (KEPT_FOR_OTHERS if sweep.compared_every is not None else 0)
    checkpoints = [*range(every, steps, every), steps][-kept:]

    def of(trial: Trial) -> float:
        # Each checkpoint has the policy, and so has the best one. An untrained trial has one checkpoint.
        at, state = (checkpoints, measured.state_bytes) if trial.model_id != UNTRAINED else ([0], 0.0)
        held = sum(_buffer_bytes(plan, measured, each) + state + measured.policy_bytes for each in at)
        return held + measured.policy_bytes + (VIDEO_BYTES if sweep.videos else 0.0)

    return MLFLOW_BYTES + sum(map(of, plan.trials))
