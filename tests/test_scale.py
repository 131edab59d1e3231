"""The simulation behind `benchmarks/scale.py`: where a sweep's speed can be computed by hand, it says the same."""

import dataclasses
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import scale
from scale import Client, Processor, Scenario, Server, Sweep, Times, gains, read_figures, simulate, times_of

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool

TIMES = Times(env_step=0.5, render=1.5, encode=20, update=1)
ROOMY = Scenario(TIMES, cores=1000)
"""A rollout is 64 frames in 128 ms, in two requests; it is followed by 16 updates."""


def with_times(**changes: float) -> Scenario:
    return dataclasses.replace(ROOMY, times=dataclasses.replace(TIMES, **changes))


def test_one_trial_and_one_server_are_as_fast_as_computed_by_hand() -> None:
    # The second request is scored after the last step, the first one meanwhile.
    assert simulate(ROOMY).steps_per_second == pytest.approx(64 / (0.128 + 0.020 + 0.016))
    assert simulate(ROOMY).waiting == pytest.approx(20 / 164)
    assert simulate(with_times(encode=200)).steps_per_second == pytest.approx(64 / (0.064 + 2 * 0.200 + 0.016))


def test_a_trial_that_does_its_parts_in_turn_is_slower_and_its_server_is_not() -> None:
    assert ROOMY.trial_ms == pytest.approx(128 + 16)
    slowed = dataclasses.replace(with_times(in_turn=0.5, round=3, send=2), rounds=4)
    assert slowed.trial_ms == pytest.approx(2 * (128 + 2 * 2 + 3 + 16))
    assert simulate(slowed).steps_per_second == pytest.approx(
        64 / (2 * (0.128 + 2 * 0.002 + 0.016) + 0.020)
    )  # the rest of a round fits into it


def test_updates_that_draw_no_missing_reward_begin_while_frames_are_scored() -> None:
    filled = dataclasses.replace(ROOMY, replayed=5 * 64 * 64)
    assert filled.early_updates(64) == 5
    assert simulate(filled).steps_per_second == pytest.approx(64 / (0.128 + 0.020 + 0.011))


def test_env_runners_divide_a_rollout_and_hand_it_over() -> None:
    shared = dataclasses.replace(with_times(gather=3, hand_over=5), env_runners=2, envs=4)
    # Each has its 32 frames after 64 ms, in one request; the server scores one after the other.
    seconds = 0.064 + 2 * 0.020 + 0.005 + 2 * 0.003 + 0.016
    assert simulate(shared).steps_per_second == pytest.approx(64 / seconds)


def test_twice_the_servers_are_twice_as_fast_where_they_are_the_bottleneck_and_that_is_what_to_buy() -> None:
    crowd = dataclasses.replace(with_times(encode=100, spread=0.1), trials=16, gpus=1)
    assert simulate(crowd).steps_per_second == pytest.approx(32 / 0.100, rel=0.03)
    assert simulate(crowd).gpu_use == pytest.approx(1, abs=0.01)
    found = gains(crowd)
    assert next(iter(found)) == "servers"
    assert found["servers"] == pytest.approx(2, rel=0.05)
    assert found["faster frames"] == pytest.approx(1, abs=0.02)


def test_no_sweep_is_faster_than_its_encoders() -> None:
    """Also where few rounds are looked at, in which trials are by turns fast and slow: that the paper's poses need 163 hours was an
    artefact of such a window."""
    frames = "humanoid, 224 pixels, fast"
    times, _ = times_of(read_figures(), "humanoid", frames, "ViT-bigG-14", 128, "A100")
    poses = Scenario(times, trials=8, env_runners=1, micro_batch=128, cores=16, gpus=1, rounds=4, **scale.HUMANOID)  # type: ignore[arg-type]
    outcome = simulate(poses)
    capacity = 128 / (times.encode / 1e3)
    assert outcome.steps_per_second == pytest.approx(outcome.gpu_use * capacity, rel=0.01)
    assert outcome.steps_per_second <= 1.01 * capacity  # the times vary


@pytest.mark.parametrize("cores", [1, 2.5])
def test_cores_limit_a_sweep_that_has_too_few(cores: float) -> None:
    outcome = simulate(dataclasses.replace(with_times(spread=0.1), trials=16, servers=4, cores=cores))
    assert outcome.steps_per_second == pytest.approx(cores * 64 / (64 * 0.002 + 2 * 0.020 + 16 * 0.001), rel=0.03)
    assert outcome.core_use == pytest.approx(1, abs=0.01)


def test_jobs_share_a_processor_at_equal_speed() -> None:
    clock = Sweep(ROOMY).clock
    processor, ends = Processor(clock, 2), {}

    def job(name: str, start: float, seconds: float) -> Any:
        yield clock.timeout(start)
        yield processor.run(seconds)
        ends[name] = clock.now

    for each in (("a", 0, 1), ("b", 0, 3), ("c", 0, 3), ("late", 2.5, 1)):
        clock.process(job(*each))
    clock.run()
    # Three on two cores until 1.5 s, then two, and from 2.5 s on three, which need another second each.
    assert ends == pytest.approx({"a": 1.5, "b": 4.0, "c": 4.0, "late": 4.0})
    assert processor.busy_s == pytest.approx(8)


def test_cores_slow_each_other_as_they_fill() -> None:
    for jobs, cores, seconds in ((1, 3, 1.0), (2, 3, 1 / 0.9), (3, 3, 1 / 0.8), (6, 3, 2 / 0.8)):
        clock = Sweep(ROOMY).clock
        processor = Processor(clock, cores, crowded=0.8)
        clock.run(clock.all_of([processor.run(1) for _ in range(jobs)]))
        processor.advance()
        assert clock.now == pytest.approx(seconds)
        assert processor.busy_s == pytest.approx(min(jobs, cores) * seconds)


def test_every_frame_is_scored_once_and_a_partial_micro_batch_takes_as_long_as_a_full_one() -> None:
    sweep = Sweep(dataclasses.replace(ROOMY, envs=1, rollout_steps=40, updates_per_step=1))
    # The second request waits 4 ms for the first one.
    assert sweep.scenario.requests == [32, 8]
    assert sweep.run().steps_per_second == pytest.approx(40 / (0.080 + 0.004 + 0.020 + 0.040))
    assert sweep.sent == sweep.scored == 40 * (sweep.scenario.warm_up + sweep.scenario.rounds)


class Handle:
    """Takes a request in the place of a Ray actor."""

    def __init__(self) -> None:
        self.score = self

    def remote(self, *request: object) -> None: ...


def test_clients_choose_the_servers_that_the_pool_chooses() -> None:
    handles: list[Any] = [Handle() for _ in range(4)]
    pool = RewardPool(PoolConfig("simulated", "none", FrameFormat(64), servers=4), handles)
    servers = Sweep(dataclasses.replace(ROOMY, servers=4)).servers
    client, draw = Client(servers), random.Random(0)
    pending: list[tuple[Any, Server, int]] = []
    for at in range(500):
        if pending and draw.random() < 0.5:
            real, simulated, frames = pending.pop(draw.randrange(len(pending)))
            backlog = draw.randrange(200)
            pool._answered(real, frames, backlog, at)
            client.answered(simulated, frames, backlog)
        else:
            frames = draw.randrange(1, 65)
            real, _ = pool._send(None, frames, ())  # type: ignore[arg-type]
            simulated = client.choose(frames)
            assert next(index for index, each in enumerate(handles) if each is real.handle) == servers.index(simulated)
            pending.append((real, simulated, frames))


def test_every_figure_says_where_it_comes_from_and_estimates_are_listed() -> None:
    figures = read_figures()
    sources = [source for each in figures.values() for _, source in each.values()]
    assert all(source.startswith(("measured by ", "counted from ", "data sheet ", "estimated")) for source in sources)
    frames = "humanoid, 224 pixels, fast"
    times, estimates = times_of(figures, "humanoid", frames, "ViT-bigG-14", 128, "A100")
    share, peak = figures["peak_share"]["A100"][0], figures["peak_tflops"]["A100"][0]
    assert times.encode == pytest.approx(128 * figures["image_gflops"]["ViT-bigG-14"][0] / peak / share)
    assert any(each.startswith("encode ") and "128 images of" in each for each in estimates)
    on_cpu = times_of(figures, "cartpole", "cartpole, 64 pixels, fast", "embedded/small", 32, scale.CPU)
    assert not any(each.startswith("encode") for each in on_cpu[1])


def test_the_script_prints_a_row_for_each_number_of_env_runners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scale.json"
    monkeypatch.setattr(sys, "argv", ["scale.py", "--gpus", "1", "--trials", "4", "--rounds", "2", "--json", str(file)])
    scale.main()
    (cluster,) = json.loads(file.read_text())["results"]["clusters"]
    assert [row["env_runners"] for row in cluster["rows"]] == [0, 1, 2]
    printed = capsys.readouterr().out
    assert "estimated: " in printed
    assert "gains: servers" in printed
