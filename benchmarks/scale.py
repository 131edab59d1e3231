"""Simulates a sweep on other hardware: how fast it is, which part limits it, and what more of each part would buy.

    .venv/bin/python benchmarks/scale.py                             the paper's eight humanoid poses on 1, 8 and 64 GPUs
    .venv/bin/python benchmarks/scale.py --gpus 256 --trials 256     256 of each, which takes minutes
    .venv/bin/python benchmarks/scale.py --card H100 --model ViT-L-14 --trials 32 --env-runners 4 --json scale.json
    .venv/bin/python benchmarks/scale_measure.py                     measures the service times of this machine
    .venv/bin/python benchmarks/scale_measure.py --check             compares real trials with their simulation

docs/architecture.md has the figures of the last check. Speed is that of all trials in one stretch of time, so none is above what the
encoders can do.

The input is service_times.json, which says of every figure where it comes from; those that were not measured here are listed above the
table, a GPU's among them. A row is a number of env runners of each trial, which share the trial's sub-environments. *wait* is the
share of time that they wait for rewards. Below the rows of a cluster are the gains of its fastest row: how many times as fast it would
be with twice as much of one part, or with that part twice as fast. The largest one names the bottleneck, and what to buy.

Trials, env runners and servers wait for each other as in the code: an env runner sends the frames of a micro-batch to the server with
the smallest backlog that it knows of and steps on; a server scores its requests in order; a trial's own updates begin before all of its
frames are scored, and wait when one draws a transition without reward. Processes share the cores at equal speed, as if the cluster
were one machine: links between nodes are not simulated. Neither are starts, checkpoints, evaluations, memory, failures, and GPUs that
draw or update.
"""

import argparse
import heapq
import itertools
import json
import math
import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import simpy
from measuring import parser_of, write_figures

_LATER = np.iinfo(np.int64).max
CPU = "cpu"
"""The card of a server without a GPU."""
FILE = Path(__file__).with_name("service_times.json")
Figures = dict[str, dict[str, tuple[float, str]]]
"""Value and source, by quantity, such as `render_ms`, and by what it is the figure of, such as `humanoid`."""


def read_figures() -> Figures:
    """Read service_times.json."""
    content: dict[str, dict[str, list]] = json.loads(FILE.read_text())
    return {quantity: {name: (value, source) for name, (value, source) in each.items()} for quantity, each in content.items()}


@dataclass(frozen=True)
class Times:
    """Milliseconds of CPU time on one core, unless they are a GPU's.

    Attributes:
        vector_step: A step of all sub-environments together: the policy, and RLlib around it.
        env_step: One sub-environment's part of it, without its frame.
        render: One frame.
        prepare: One micro-batch, in the server, before a GPU encodes it. On a CPU it is a part of `encode`.
        encode: One micro-batch, on the server's card.
        update: One update of the policy, with its batch from the replay buffer.
        round: What a trial does once for each rollout: buffer, weights, metrics.
        gather: What it does for each remote env runner and rollout.
        hand_over: What a remote env runner does for each rollout to hand it over.
        send: One request of a micro-batch, in the process that sends it, with the copy into the object store.
        serve: One request, in the server's process, beside its frames.
        latency: One request, while no process of the sweep computes.
        spread: Standard deviation of a time, as a share of it.
        crowded: Speed of a process while all other cores compute, as a share of its speed alone: they share caches and memory.
        in_turn: Speed of a trial's process and its env runners, which do their parts in turn, as a share of the parts' speed, each
            measured alone: what one part leaves in the caches, the next one replaces.
    """

    vector_step: float = 0.0
    env_step: float = 0.0
    render: float = 0.0
    prepare: float = 0.0
    encode: float = 0.0
    update: float = 0.0
    round: float = 0.0
    gather: float = 0.0
    hand_over: float = 0.0
    send: float = 0.0
    serve: float = 0.0
    latency: float = 0.0
    spread: float = 0.0
    crowded: float = 1.0
    in_turn: float = 1.0


def times_of(figures: Figures, task: str, frames: str, model: str, micro_batch: int, card: str) -> tuple[Times, list[str]]:
    """Choose the times of a sweep.

    Args:
        figures: All figures.
        task: `cartpole` or `humanoid`.
        frames: What is drawn, as `render` names it, such as `humanoid, 224 pixels, fast`.
        model: The reward model's architecture, or `embedded/<size>`.
        micro_batch: Frames in one forward pass.
        card: The GPU of each server, or `cpu`.

    Returns:
        The times, and the sources of those that are estimates.
    """
    pixels = frames.split(", ")[1]
    names = dict.fromkeys(("vector_step", "env_step", "update", "round"), task) | {"render": frames, "send": pixels}
    names |= dict.fromkeys(("gather", "hand_over", "serve", "latency", "spread", "crowded", "in_turn"), "any")
    chosen = {quantity: figures[quantity][name] for quantity, name in names.items()}
    if card == CPU:
        chosen["encode"] = figures["encode"][f"{model}, micro-batch {micro_batch}"]
    else:
        prepare, source = figures["prepare_frame"][pixels]
        chosen["prepare"] = micro_batch * prepare, source
        gflops, peak = figures["image_gflops"][model][0], figures["peak_tflops"][card][0]
        share, source = figures["peak_share"][card]
        how = f"{micro_batch} images of {gflops:g} GFLOPs at {share:.0%} of {peak:g} TFLOP/s ({card})"
        chosen["encode"] = micro_batch * gflops / (peak * share), f"estimated: {how}; {source.removeprefix('estimated: ')}"
    estimates = [
        f"{name} {value:.3g} ms: {source}" for name, (value, source) in chosen.items() if source.startswith("estimated")
    ]
    return Times(**{name: value for name, (value, _) in chosen.items()}), estimates


@dataclass(frozen=True)
class Scenario:
    """A sweep on a cluster.

    Attributes:
        times: How long each part takes.
        trials: Trials that run side by side.
        env_runners: Remote env runners of each trial; 0 if the trial's own process samples.
        envs: Sub-environments of each process that samples.
        rollout_steps: Steps of each sub-environment between updates.
        updates_per_step: Updates for each transition that is sampled.
        batch: Transitions in an update.
        replayed: Transitions in the replay buffer.
        micro_batch: Frames in one forward pass.
        servers: Reward servers, spread evenly over the GPUs.
        cores: Cores of the cluster.
        gpus: GPUs of the cluster; without any, servers encode on its cores.
        rounds: Rounds of each trial that are looked at, once it is warm.
        seed: Seed of the variation of times.
    """

    times: Times
    trials: int = 1
    env_runners: int = 0
    envs: int = 8
    rollout_steps: int = 8
    updates_per_step: float = 0.25
    batch: int = 64
    replayed: int = 0
    micro_batch: int = 32
    servers: int = 1
    cores: float = 2
    gpus: int = 0
    rounds: int = 12
    seed: int = 0

    @property
    def sampling(self) -> int:
        """Processes of a trial that sample."""
        return self.env_runners or 1

    @property
    def round_frames(self) -> int:
        """Transitions of a trial between its updates."""
        return self.sampling * self.envs * self.rollout_steps

    @property
    def updates(self) -> int:
        """Updates of a trial after each of its rollouts."""
        return round(self.updates_per_step * self.round_frames)

    @property
    def requested_ms(self) -> list[float]:
        """Milliseconds to collect and send the frames of each request of a rollout."""
        times = self.times
        step = times.vector_step + self.envs * (times.env_step + times.render)
        return [(steps * step + times.send) / times.in_turn for steps in self.requests]

    @property
    def round_ms(self) -> float:
        """Milliseconds of a trial for each rollout, beside sampling and updates."""
        return (self.times.round + self.env_runners * self.times.gather) / self.times.in_turn

    @property
    def update_ms(self) -> float:
        """Milliseconds of one update."""
        return self.times.update / self.times.in_turn

    @property
    def trial_ms(self) -> float:
        """Milliseconds that a trial without remote env runners computes for each rollout."""
        return sum(self.requested_ms) + self.round_ms + self.updates * self.update_ms

    def early_updates(self, missing: int) -> int:
        """Return how many updates are expected before one draws any of the `missing` frames without reward."""
        return min(self.updates, self.replayed // (self.batch * missing)) if missing else self.updates

    @property
    def requests(self) -> list[int]:
        """Vector steps whose frames each request of a rollout has."""
        full = math.ceil(self.micro_batch / self.envs)
        count, rest = divmod(self.rollout_steps, full)
        return [full] * count + [rest] * bool(rest)

    @property
    def warm_up(self) -> int:
        """Rounds before those that are looked at: at first all clients crowd at servers that they have not tried yet."""
        return math.ceil(self.rounds / 4) + math.ceil(self.servers / len(self.requests) / self.sampling)


@dataclass(frozen=True)
class Outcome:
    """What a simulated sweep did once it was warm: speed of all trials together, and shares of time."""

    steps_per_second: float
    waiting: float
    core_use: float
    gpu_use: float


class Processor:
    """A processor whose jobs share its cores at equal speed, none faster than one core; `busy_s` are core-seconds used so far.

    Args:
        clock: The simulation's.
        cores: Number of cores.
        crowded: Speed of a core while all compute, as a share of its speed alone. In between, it falls evenly.
    """

    def __init__(self, clock: simpy.Environment, cores: float, crowded: float = 1.0) -> None:
        self._clock, self._cores = clock, cores
        self._lost = (1 - crowded) / (cores - 1) if cores > 1 else 0.0
        # How much work a job has received that has been here all the time. A job ends when this has grown by its size.
        self._work = self._updated = self.busy_s = 0.0
        self._jobs: list[tuple[float, int, simpy.Event]] = []
        self._arrivals, self._wake_up = itertools.count(), 0

    def run(self, seconds: float) -> simpy.Event:
        """Start a job that takes some seconds on a core of its own, and return the event of its end."""
        self.advance()
        done = self._clock.event()
        heapq.heappush(self._jobs, (self._work + seconds, next(self._arrivals), done))
        self._await_next()
        return done

    def advance(self) -> None:
        """Account for the work since the last event."""
        if self._jobs:
            passed = self._clock.now - self._updated
            self._work += passed * self._speed
            self.busy_s += passed * self._busy_cores
        self._updated = self._clock.now

    @property
    def _busy_cores(self) -> float:
        return min(len(self._jobs), self._cores)

    @property
    def _speed(self) -> float:
        slowed = 1 - self._lost * max(0.0, self._busy_cores - 1)
        return slowed * self._busy_cores / len(self._jobs)

    def _await_next(self) -> None:
        self._wake_up += 1
        wait = max(0.0, self._jobs[0][0] - self._work) / self._speed
        self._clock.timeout(wait, self._wake_up).callbacks.append(self._end_jobs)

    def _end_jobs(self, timeout: simpy.Event) -> None:
        if timeout.value != self._wake_up:  # jobs have come or gone since: another one waits for the next end
            return
        self.advance()
        while self._jobs and self._jobs[0][0] <= self._work + 1e-9:
            heapq.heappop(self._jobs)[2].succeed()
        if self._jobs:
            self._await_next()


@dataclass
class Server:
    """A reward server: its GPU, and the requests that wait for it."""

    gpu: Processor | None
    queue: simpy.Store
    backlog: int = 0


class Client:
    """A process that samples. It sees the servers as `RewardPool` does: reported backlog, and its own frames in flight.

    Args:
        servers: Those of its pool.
    """

    def __init__(self, servers: list[Server]) -> None:
        self._servers, self._index = servers, {id(server): index for index, server in enumerate(servers)}
        self._reported, self._in_flight = (np.zeros(len(servers), np.int32) for _ in range(2))
        self._turn = np.arange(len(servers))
        """The smaller, the longer ago a server was chosen."""
        self.pending: list[tuple[Server, int, simpy.Event]] = []
        self.waiting_s = 0.0

    def choose(self, frames: int) -> Server:
        """Choose the least busy server for a request."""
        backlog = self._reported + self._in_flight
        index = int(np.where(backlog == backlog.min(), self._turn, _LATER).argmin())
        self._turn[index] = self._turn.max() + 1
        self._in_flight[index] += frames
        return self._servers[index]

    def answered(self, server: Server, frames: int, backlog: int) -> None:
        """Note the backlog that a server has reported with its answer."""
        index = self._index[id(server)]
        self._in_flight[index] -= frames
        self._reported[index] = max(0, backlog - self._in_flight[index])


class Sweep:
    """One simulation of a scenario.

    Args:
        scenario: What is simulated.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario, self.times = scenario, scenario.times
        self.clock = simpy.Environment()
        self._random = random.Random(scenario.seed)
        self.cores = Processor(self.clock, scenario.cores, self.times.crowded)
        self.gpus = [Processor(self.clock, 1) for _ in range(scenario.gpus)]
        places = [
            self.gpus[index * scenario.gpus // scenario.servers] if self.gpus else None for index in range(scenario.servers)
        ]
        self.servers = [Server(gpu, simpy.Store(self.clock)) for gpu in places]
        self.trials = [[Client(self.servers) for _ in range(scenario.sampling)] for _ in range(scenario.trials)]
        self._rounds = [0] * len(self.trials)
        self._warm, self._done = ([self.clock.event() for _ in self.trials] for _ in range(2))
        self.sent = self.scored = 0

    def run(self) -> Outcome:
        """Simulate until each trial has made its rounds, after those that only warm up."""
        for server in self.servers:
            self.clock.process(self._serve(server))
        for index in range(len(self.trials)):
            self.clock.process(self._train(index))
        self.clock.run(self.clock.all_of(self._warm))
        warm, before = self.clock.now, self._used()
        self.clock.run(self.clock.all_of(self._done))
        scenario = self.scenario
        used = zip(self._used(), before, strict=True)
        frames, waiting, cores, gpus = ((now - then) / (self.clock.now - warm) for now, then in used)
        clients = scenario.trials * scenario.sampling
        return Outcome(frames, waiting / clients, cores / scenario.cores, gpus / scenario.gpus if gpus else 0.0)

    def _used(self) -> tuple[float, float, float, float]:
        """Return the frames that were scored until now, and seconds of waiting, cores and GPUs."""
        for processor in (self.cores, *self.gpus):
            processor.advance()
        waiting = sum(client.waiting_s for trial in self.trials for client in trial)
        return self.scored, waiting, self.cores.busy_s, sum(gpu.busy_s for gpu in self.gpus)

    def _compute(self, ms: float, processor: Processor | None = None) -> simpy.Event:
        """Compute for some milliseconds, varied by chance around that mean; by default on the cores."""
        spread = self.times.spread
        varied = self._random.gammavariate(1 / spread**2, spread**2) if spread else 1.0
        return (processor or self.cores).run(ms / 1e3 * varied)

    def _train(self, index: int) -> Generator[simpy.Event, Any, None]:
        scenario, trial = self.scenario, self.trials[index]
        while True:
            yield self.clock.all_of([self.clock.process(self._sample(client)) for client in trial])
            yield self._compute(scenario.round_ms)
            early = scenario.early_updates(sum(frames for client in trial for _, frames, _ in client.pending))
            yield self._compute(early * scenario.update_ms)
            for client in trial:
                yield from self._await_rewards(client)
            yield self._compute((scenario.updates - early) * scenario.update_ms)
            self._rounds[index] += 1
            for event, rounds in ((self._warm, scenario.warm_up), (self._done, scenario.warm_up + scenario.rounds)):
                if self._rounds[index] == rounds:
                    event[index].succeed()

    def _sample(self, client: Client) -> Generator[simpy.Event, Any, None]:
        scenario = self.scenario
        for steps, ms in zip(scenario.requests, scenario.requested_ms, strict=True):
            frames = steps * scenario.envs
            yield self._compute(ms)
            request = client.choose(frames), frames, self.clock.event()
            client.pending.append(request)
            self.clock.process(self._deliver(*request))
        if scenario.env_runners:
            yield from self._await_rewards(client)
            yield self._compute(self.times.hand_over / self.times.in_turn)

    def _await_rewards(self, client: Client) -> Generator[simpy.Event, Any, None]:
        started = self.clock.now
        for server, frames, answer in client.pending:
            backlog = yield answer
            client.answered(server, frames, backlog)
        client.waiting_s += self.clock.now - started
        client.pending = []

    def _deliver(self, server: Server, frames: int, answer: simpy.Event) -> Generator[simpy.Event, Any, None]:
        self.sent += frames
        yield self.clock.timeout(self.times.latency / 1e3)
        server.backlog += frames
        yield server.queue.put((frames, answer))

    def _serve(self, server: Server) -> Generator[simpy.Event, Any, None]:
        while True:
            frames, answer = yield server.queue.get()
            yield self._compute(self.times.serve)
            # A partial micro-batch is padded, and takes as long as a full one.
            for _ in range(math.ceil(frames / self.scenario.micro_batch)):
                if server.gpu:
                    yield self._compute(self.times.prepare)
                yield self._compute(self.times.encode, server.gpu)
            server.backlog -= frames
            self.scored += frames
            answer.succeed(server.backlog)


def simulate(scenario: Scenario) -> Outcome:
    """Simulate a sweep until it is warm, and then some rounds of each trial."""
    return Sweep(scenario).run()


def gains(scenario: Scenario) -> dict[str, float]:
    """Return how many times as fast a sweep is with twice as much of a part, or with it twice as fast; the largest first."""
    times = scenario.times
    more = {
        "servers": replace(scenario, servers=2 * scenario.servers, gpus=2 * scenario.gpus),
        "cores": replace(scenario, cores=2 * scenario.cores),
        "faster updates": replace(scenario, times=replace(times, update=times.update / 2)),
        "faster frames": replace(scenario, times=replace(times, render=times.render / 2)),
    }
    if scenario.envs > 1:
        more["env runners"] = replace(scenario, env_runners=2 * scenario.sampling, envs=math.ceil(scenario.envs / 2))
    before = simulate(scenario).steps_per_second
    found = {name: simulate(each).steps_per_second / before for name, each in more.items()}
    return dict(sorted(found.items(), key=lambda gain: -gain[1]))


HUMANOID = {"envs": 32, "rollout_steps": 100, "updates_per_step": 1 / 32, "batch": 512, "replayed": 500_000}
"""sweeps/paper_humanoid_kneeling.yaml, with its replay buffer half full."""
POSES, STEPS = 8, 10_000_000


def scenarios(options: argparse.Namespace, gpus: int, times: Times) -> Iterator[Scenario]:
    """Make the scenarios of one cluster: all numbers of env runners for which it has cores, or those that were asked for."""
    settings: dict[str, Any] = HUMANOID
    base = Scenario(
        times, options.trials, micro_batch=options.micro_batch, servers=gpus, gpus=gpus, rounds=options.rounds, **settings
    )
    base = replace(base, cores=options.cores * gpus)
    fitting = [each for each in (0, 1, 2, 4, 8, 16, 32) if options.trials * (1 + each) <= base.cores]
    for env_runners in options.env_runners or fitting or [0]:
        yield replace(base, env_runners=env_runners, envs=math.ceil(base.envs / (env_runners or 1)))


def main() -> None:
    """Print the tables, and write them as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="ViT-bigG-14", help="as in service_times.json")
    parser.add_argument(
        "--frames", default="humanoid, 224 pixels, fast", help="what is drawn, as in service_times.json under render"
    )
    parser.add_argument("--micro-batch", type=int, default=128)
    parser.add_argument("--card", default="A100", help="A100 or H100")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--cores", type=float, default=16, help="for each GPU")
    parser.add_argument("--trials", type=int, default=POSES, help="by default one for each of the paper's poses")
    parser.add_argument("--env-runners", type=int, nargs="+", help="of each trial; by default all powers of 2 that fit")
    parser.add_argument("--rounds", type=int, default=12, help="rounds of each trial that are looked at")
    options = parser.parse_args()
    times, estimates = times_of(read_figures(), "humanoid", options.frames, options.model, options.micro_batch, options.card)
    print(f"{options.trials} trials of {STEPS:,} steps, {options.model} on {options.card}")
    print("\n".join(f"  {each}" for each in estimates))
    print(f"\n{'GPUs':>5}{'cores':>7}{'env runners':>13}{'steps/s':>9}{'hours':>8}{'GPU':>6}{'cores':>7}{'wait':>6}")
    results = []
    for gpus in options.gpus:
        found = [(scenario, simulate(scenario)) for scenario in scenarios(options, gpus, times)]
        for scenario, outcome in found:
            hours = options.trials * STEPS / outcome.steps_per_second / 3600
            shares = f"{outcome.gpu_use:6.0%}{outcome.core_use:7.0%}{outcome.waiting:6.0%}"
            runners = f"{scenario.trials} x {scenario.env_runners}"
            print(f"{gpus:5}{scenario.cores:7g}{runners:>13}{outcome.steps_per_second:9.0f}{hours:8.3g}{shares}", flush=True)
        buys = gains(max(found, key=lambda each: each[1].steps_per_second)[0])
        print("      gains: " + ", ".join(f"{name} {gain:.2f}" for name, gain in buys.items()), flush=True)
        rows = [{"gpus": gpus, "env_runners": scenario.env_runners} | vars(outcome) for scenario, outcome in found]
        results.append({"rows": rows, "gains_of_the_fastest": buys})
    write_figures(options, {"estimates": estimates, "clusters": results})


if __name__ == "__main__":
    main()
