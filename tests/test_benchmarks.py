"""Do the benchmarks run, each by itself as `make bench` runs them? Their speeds are not asserted. Minutes: `make test-slow`."""

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import measuring
from command_line import parse
from pages import blocks_of
from precision import fidelity, kinds_of_frames
from specs import make_specs
from startup import IMPORTS, RAY, time_process

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.sweeping.config.screening import load_plan
from vlm_rm_sweeps.tasks.registry import find_task

REPOSITORY = Path(__file__).parent.parent
TINY = "embedded/tiny"
GPU = [
    "--device",
    "cpu",
    "--modes",
    "eager",
    "--precisions",
    "fp32",
    "--micro-batch",
    "8",
    "--rounds",
    "1",
    "--frames",
    "2",
    "--steps",
    "32",
]
TRAINING = ["cartpole-upright", "mountaincar-summit"]
SCRIPTS = {
    "reward_pool.py": (["--models", TINY, "--frames", "128", "--rounds", "1"], [TINY]),
    "rendering.py": (["--rounds", "1"], ["CartPole", "MountainCar", "humanoid, fast", "humanoid, full", "humanoid, steps/s"]),
    "specs.py": (["--model", TINY, "--frames", "16", "--specs", "1", "20", "--rounds", "1"], ["1 ", "20 "]),
    "sharing.py": (["--model", TINY, "--clients", "2", "--frames", "8", "--rounds", "1"], ["the server of 2 clients"]),
    "precision.py": (
        ["--models", TINY, "--frames", "16", "--rounds", "1"],
        [f"{TINY:18}{each}" for each in ("torch fp32", "folded fp32", "torch bf16", "torch fp16")],
    ),
    "servers.py": (["--model", TINY, "--frames", "128", "--steps", "64", "--rounds", "1"], ["2 servers", "2 trials"]),
    "env_runners.py": (["--model", TINY, "--env-runners", "0", "1", "--profile", "fast", "--rounds", "1"], ["          1"]),
    "many_trials.py": (
        ["--trials", "2", "--simulate", "10", "20"],
        ["between trials, s for each", "mirror, without MLflow", "--resume with half of the trials ended"],
    ),
    "mlflow_rates.py": (
        ["--kinds", "http", "--trials", "4", "--results", "2", "--at-once", "2", "--workers", "1"],
        ["http "],
    ),
    "compiled_update.py": (["--updates", "2", "--rounds", "1"], ["eager ", "compiled ", "pay"]),
    "transport.py": (
        ["--tasks", "cartpole-upright", "--pixels", "64", "--rounds", "1"],
        ["float32", "zlib of changes", "object store"],
    ),
    "startup.py": (["--sweeps", "1", "--rounds", "0"], ["the first trial starts", "each further trial"]),
    "update.py": (
        ["--updates", "2", "--rounds", "1", "--transitions", "256"],
        ["DQN on cartpole-upright, batch 64", "SAC on mountaincar-summit, batch 256", "SAC on humanoid-kneeling, batch 256"],
    ),
    "end_to_end.py": (["--steps", "64", "--rounds", "1"], TRAINING),
    "versions.py": (
        ["--commit", "HEAD", "--model", TINY, "--steps", "4096", "--rounds", "1"],
        ["the working tree", "HEAD", "..., today's recipe"],
    ),
    "gpu.py": (
        [*GPU, "--models", TINY],
        [f"{TINY:16}fp32      eager", f"{TINY:16}fp32      pool", "humanoid, frames/s", f"training with {TINY}"],
    ),
}
CONTESTANTS = {
    "update.py": ["this project", "stable-baselines3", "RLlib"],
    "end_to_end.py": ["this project", "Gymnasium's frames", "fast frames"],
}


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"benchmarks/{script}", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200)


def with_changes(changes: list[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_prints_a_row_for_everything_that_it_compares_and_writes_a_file(script: str, tmp_path: Path) -> None:
    arguments, rows = SCRIPTS[script]
    ran = run(script, *arguments, "--json", str(tmp_path / "figures.json"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = [line.lstrip() for line in ran.stdout.splitlines()]
    expected = [(row, name) for row in rows for name in CONTESTANTS.get(script, [""])]
    missing = [(row, name) for row, name in expected if not any(line.startswith(row) and name in line for line in lines)]
    assert not missing, ran.stdout
    content = json.loads((tmp_path / "figures.json").read_text())
    assert list(content) == ["command", "date", "machine", "versions", "settings", "results"]
    assert content["machine"]["cores"] >= 1
    assert content["versions"]["torch"] == torch.__version__.split("+")[0]
    figures = [each for each in numbers(content["results"]) if each is not None]
    assert figures
    assert np.isfinite(figures).all()


def test_a_version_that_git_does_not_know_is_refused_before_anything_runs() -> None:
    refused = run("versions.py", "--commit", "no-such-version")
    assert refused.returncode == 2
    assert refused.stderr.startswith("'no-such-version' is not in this repository")
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_an_estimate_is_compared_with_a_sweep(tmp_path: Path) -> None:
    small = [
        "steps=256",
        "steps_per_result=128",
        "models=[embedded/tiny]",
        "alphas=[0.0]",
        "prompts=null",
        "evaluation_episodes=1",
    ]
    to = ["--results", str(tmp_path / "results"), "--json", str(tmp_path / "figures.json")]
    ran = run("fit_check.py", "sweeps/quickstart.yaml", *with_changes(small), *to)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].startswith("quickstart")
    found = json.loads((tmp_path / "figures.json").read_text())["results"]["quickstart"]
    assert all(value > 0 for needs in found.values() for value in needs.values())


@pytest.mark.slow
def test_an_arm_of_the_ablation_is_trained_and_not_trained_again(tmp_path: Path) -> None:
    changes = [
        "steps=256",
        "steps_per_result=128",
        "seeds=[0]",
        "settings.learning_starts=128",
        "evaluation_episodes=2",
        "trial.evaluation_interval=128",
    ]
    command = [
        "--arm",
        "SimBa",
        *with_changes(changes),
        "--results",
        str(tmp_path / "results"),
        "--json",
        str(tmp_path / "arms.json"),
    ]
    ran = run("short_on_steps.py", *command)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].startswith("SimBa critics")
    (arms,) = json.loads((tmp_path / "arms.json").read_text()).values()
    (trial,) = arms["SimBa critics"]
    assert trial["update_ms"] > 0
    again = run("short_on_steps.py", *command)
    assert again.stdout.splitlines()[-1] == ran.stdout.splitlines()[-1]
    assert len(list((tmp_path / "results").glob("humanoid_kneeling_truth-*"))) == 1


def numbers(results: object) -> list[float | None]:
    """Return all numbers in JSON."""
    if isinstance(results, dict | list):
        values = results.values() if isinstance(results, dict) else results
        return [number for value in values for number in numbers(value)]
    return [] if isinstance(results, str) else [results]  # type: ignore[list-item]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_benchmark_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu

    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert not printed.out
    assert printed.err.startswith("gpu.py: --device cuda: torch finds no GPU here")
    assert printed.err.count("\n") == 1


def test_contestants_take_turns_and_the_first_turn_is_not_counted() -> None:
    turns: list[str] = []
    slept = {"a": iter([10**6, 0, 0]), "b": iter([0, 0, 0])}

    def contestant(name: str) -> None:
        turns.append(name)
        sum(range(next(slept[name])))

    costs = measuring.take_turns({name: lambda name=name: contestant(name) for name in slept}, rounds=2)  # type: ignore[misc]
    assert turns == ["a", "b"] * 3
    first = measuring.cost_of(lambda: sum(range(10**6)))
    assert costs["a"].cpu_seconds < first.cpu_seconds / 2


def test_a_median_ignores_the_turn_in_which_the_machine_was_busy() -> None:
    turns = [measuring.Cost(seconds, cpu) for seconds, cpu in ((1, 0.5), (9, 0.6), (2, 0.4))]
    assert measuring.median_cost(turns) == measuring.Cost(2, 0.5)


def test_figures_are_written_with_the_machine_and_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    measuring.write_figures(argparse.Namespace(json=file, rounds=3), {"a": measuring.Cost(1.5, 0.5)})
    content = json.loads(file.read_text())
    assert content["results"] == {"a": {"seconds": 1.5, "cpu_seconds": 0.5}}
    assert content["settings"] == {"rounds": 3}
    assert {"processor", "cores", "memory_gb", "gpus", "load_average"} <= set(content["machine"])
    measuring.write_figures(argparse.Namespace(json=None), {})  # nothing was asked for


def test_fidelity_of_a_precision_is_its_deviation_beside_the_spread_and_the_order() -> None:
    reference = np.array([0.0, 1.0, 2.0, 3.0])
    found = fidelity(reference[::-1] + 0.5, reference)
    assert found.deviation == pytest.approx(3.5)
    assert found.spread == pytest.approx(reference.std())
    assert found.rank_correlation == pytest.approx(-1)


def test_precisions_are_compared_on_three_kinds_of_frames() -> None:
    frames = kinds_of_frames(find_task("cartpole-upright"), FrameFormat(32), 4)
    assert {kind: each.shape for kind, each in frames.items()} == dict.fromkeys(
        ("random", "landscape", "visited"), (4, 32, 32, 3)
    )
    assert all(len({frame.tobytes() for frame in each}) > 1 for each in frames.values())


def test_a_thousand_specs_differ_and_share_prompts() -> None:
    specs = make_specs(1_000)
    assert len(set(specs)) == 1_000
    assert len({spec.goal_prompts for spec in specs}) == 100


@pytest.mark.parametrize("code", (IMPORTS | RAY).values())
def test_what_start_up_measures_is_python(code: str) -> None:
    compile(code, "startup.py", "exec")


def test_ray_starts_as_start_up_measures_it() -> None:
    time_process(RAY["Ray, started, without one"])  # raises if the process fails


def test_the_first_session_runs_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its script is no valid one, its files none that are accepted, or its commands do not exist: a user's first session would end."""
    script = REPOSITORY / "benchmarks" / "first_session.sh"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    for name, content in re.findall(r"^cat > (\S+) <<'\w+'\n(.*?)^(?:YAML|PY)$", text, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "sweeps").symlink_to(REPOSITORY / "sweeps")
    monkeypatch.chdir(tmp_path)
    planned = [name for name in ("pendulum.yaml", "my_reward.yaml") if load_plan(Path(name))]
    assert planned == ["pendulum.yaml", "my_reward.yaml"]
    commands = re.findall(r"^\.venv/bin/vlm-rm ([^>\n]+)", text, re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        parse(shlex.split(command.replace('"$RUN"', ".")))
    page = "docs/explanation/first-session.md"
    shown = [shlex.split(line) for block in blocks_of(page, "console") for line in block.text.splitlines()]
    asked = [shlex.split(f"vlm-rm {command}") for command in commands if command.startswith(("render ", "sweep "))]
    assert len(asked) == 5
    assert [words for words in asked if words not in shown] == [], "the page has every command of a part of one's own"
    named = {block.file: block.text.partition("\n")[2].strip() for block in blocks_of(page) if block.file}
    assert named == {file.name: file.read_text(encoding="utf-8").strip() for file in tmp_path.iterdir() if file.is_file()}
    targets = re.findall(r"^make (\w+)", text, re.MULTILINE)
    assert set(targets) == {"install", "sweep", "analysis"}
    assert set(targets) <= set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_whatever_starts_ray_names_the_cluster() -> None:
    """Else Ray joins what the file of the last `ray start` names: somebody else's cluster, or one that has ended, for 13 minutes."""
    comments = r"(?:\s|#[^\n]*\n)*"
    calls = [
        (file.relative_to(REPOSITORY), call)
        for folder in ("vlm_rm_sweeps", "benchmarks", "analysis", "docs", "tests")
        for file in (REPOSITORY / folder).rglob("*.py")
        for call in re.findall(rf"ray\.init\({comments}(\w*)", file.read_text(encoding="utf-8"))
    ]
    assert len(calls) > 5
    assert [(str(file), call) for file, call in calls if call != "address"] == []
