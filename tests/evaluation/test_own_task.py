"""A task of the user's own works everywhere, by `module:attribute` and by a registered name; the package does not know it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.sac import SACConfig

from vlm_rm_sweeps import registry as registries
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states, states_of_policies, task_of_all
from vlm_rm_sweeps.evaluation.compare import compare_models
from vlm_rm_sweeps.evaluation.ground_truth import read_truth
from vlm_rm_sweeps.evaluation.label_jobs import label_job
from vlm_rm_sweeps.evaluation.landscape import landscape, make_axis, shapes, walk
from vlm_rm_sweeps.evaluation.rollouts import evaluate, run_episode, write_plain_video
from vlm_rm_sweeps.evaluation.states import load_states, write_states
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.screening import Screening, load_plan
from vlm_rm_sweeps.tasks import registry
from vlm_rm_sweeps.tasks.preview import frames_of_episode
from vlm_rm_sweeps.tasks.registry import find_task, register_task
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.checkpoints import Checkpoint

PLUGINS = Path(__file__).parents[1] / "plugins"
REFERENCE = "pendulum_tasks:PENDULUM_UP"
SPECS = {(alpha, "task"): RewardSpec(("a red rod pointing up",), ("a red rod",), alpha) for alpha in (0.0, 0.5)}


@pytest.fixture(scope="module", params=[REFERENCE, "pendulum-up"])
def task(request: pytest.FixtureRequest) -> Iterator[Task]:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(PLUGINS)
        # Other tests of this process do not see what is registered here, nor this one what they did: an example has the same name.
        for owner, name in ((registry, "_found"), (registry._REGISTRY, "_entries")):
            known = {key: value for key, value in getattr(owner, name).items() if key != "pendulum-up"}
            patched.setattr(owner, name, known)
        if request.param != REFERENCE:
            register_task(request.param, REFERENCE)
        yield find_task(request.param)


@pytest.fixture
def policy(task: Task, saved_policy: Callable[..., Checkpoint], tmp_path: Path) -> Checkpoint:
    """An untrained SAC policy of the task, as a trial leaves it."""
    env = task.make_env(None)
    torch.manual_seed(0)
    config = SACConfig().rl_module(model_config={"fcnet_hiddens": [8]})
    spec: Any = config.get_default_rl_module_spec()
    spec.observation_space, spec.action_space, spec.inference_only = env.observation_space, env.action_space, True
    spec.model_config = config.model_config
    prompts = {"goal": [task.goal_prompt], "baseline": [task.baseline_prompt], "alpha": 0.5}
    reward = {"model": "embedded/tiny", "precision": "fp32", "micro_batch": 32} | prompts
    described = {
        "task": task.name,
        "rendering": asdict(task.rendering("night", "behind")),
        "algorithm": "sac",
        "reward": reward,
    }
    return saved_policy(
        tmp_path / "sweep" / "trials" / "one", module=spec.build(), model_config=dict(spec.model_config), **described
    )


def test_frames_show_its_own_textures_and_cameras(task: Task) -> None:
    frame_format = FrameFormat(32)
    day, night, behind = (
        frames_of_episode(task, task.rendering(*each), frame_format, steps=3, seed=0, random=True).astype(int)
        for each in (("day", "front"), ("night", "front"), ("day", "behind"))
    )
    assert np.abs(255 - day - night).max() <= 1
    np.testing.assert_allclose(behind, day[:, :, ::-1], atol=1)
    with pytest.raises(UserError, match="unknown textures 'dusk': expected one of day, night"):
        task.rendering("dusk")


def test_its_landscape_has_its_variables(task: Task) -> None:
    model = load_reward_model("embedded/tiny")
    walked = walk(task, [make_axis(task, "angle", 9)], [model.frame_format], task.rendering("night"))
    table = landscape(walked, model, SPECS)
    assert len(table) == 2 * 9
    assert shapes(walked, table)["peak_angle"].between(-3.14, 3.14).all()


def test_its_states_are_sampled_measured_and_labelled(task: Task, tmp_path: Path) -> None:
    rendering = task.rendering("night", "behind")
    write_states(tmp_path / "data", task, sampled_states(task, 40, seed=0, rendering=rendering))
    dataset = load_states(tmp_path / "data")
    assert dataset.task is task
    assert dataset.variables == ["angle"]
    assert dataset.renderings().keys() == {("night", "behind", rendering.profile)}
    assert dataset.table["success"].tolist() == [abs(angle) < 0.3 for angle in dataset.table["angle"]]
    assert label_job(dataset.folder, None, None).criterion == "rod within 17 degrees of upright"
    truth = read_truth(dataset, "-abs(angle)")
    (measured,) = compare_models(dataset, truth, ["embedded/tiny"], SPECS)
    assert len(measured.table) == 2
    assert np.isfinite(measured.table["epic_distance"]).all()


def test_its_policies_are_evaluated_and_give_states_and_videos(task: Task, policy: Checkpoint, tmp_path: Path) -> None:
    (episode,) = evaluate(policy, episodes=1, seed=1, pictures=True)
    assert np.isfinite(episode.clip_return)
    assert len(episode.in_goal) == len(episode.pictures) == task.episode_steps
    write_plain_video(policy, episode, 1, tmp_path / "videos")
    assert label_job(tmp_path / "videos", None, None).criterion == task.success_criterion
    states = list(states_of_policies([policy], episodes=2, every=6, seed=1, say=lambda line: None))
    assert [state.provenance.step for state in states] == [6, 12, 6, 12]
    assert states[0].provenance.textures == "night"
    assert write_states(tmp_path / "data", task_of_all([policy]), states).task is task


def test_its_success_is_that_of_each_step(task: Task) -> None:
    angles = run_episode(task, lambda observation: np.zeros(1, np.float32), seed=3, visit=lambda env: env.unwrapped.state[0])  # type: ignore[attr-defined]
    assert angles.in_goal.tolist() == [abs(angle) < 0.3 for angle in angles.visited]


def test_sweep_and_screening_files_name_it(task: Task, tmp_path: Path) -> None:
    dataset = write_states(
        tmp_path / "data", task, sampled_states(task, 40, seed=0, rendering=task.rendering("night", "behind"))
    )
    keys = f"name: x, task: '{task.name}', models: [embedded/tiny], alphas: [0, 0.5], steps: 100, epic_states: 20, cameras: [behind]"
    (tmp_path / "sweep.yaml").write_text(f"{{{keys}, textures: [night, day]}}")
    plan = load_plan(tmp_path / "sweep.yaml")
    assert isinstance(plan, Plan)
    assert (plan.task, plan.sweep.algorithm) == (task, "sac")
    assert [(each.textures, each.camera) for each in plan.renderings] == [("night", "behind"), ("day", "behind")]
    (tmp_path / "screen.yaml").write_text(
        f"{{{keys}, textures: [night], screen: {{states: '{dataset.folder}', truth: success}}}}"
    )
    screening = load_plan(tmp_path / "screen.yaml")
    assert isinstance(screening, Screening)
    assert screening.plan.task is task


def test_data_of_a_task_whose_module_is_not_imported_say_what_to_do(task: Task, policy: Checkpoint, tmp_path: Path) -> None:
    folder = write_states(tmp_path / "data", task, sampled_states(task, 4, seed=0)).folder
    (episode,) = evaluate(policy, episodes=1, seed=1, pictures=True)
    write_plain_video(policy, episode, 1, tmp_path / "videos")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registry, "_found", {})
        patched.setattr(registry, "_REGISTRY", registries.Registry("task"))
        patched.setattr(registries, "_trusted_modules", set())
        patched.delitem(sys.modules, "pendulum_tasks")
        for use in (
            lambda: load_states(folder),
            lambda: evaluate(policy, episodes=1, seed=1, pictures=False),
            lambda: task_of_all([policy]),
            lambda: label_job(tmp_path / "videos", None, None),
        ):
            with pytest.raises(UserError, match="--module"):
                use()
        assert label_job(tmp_path / "videos", None, "it stands").criterion == "it stands"
        assert "pendulum_tasks" not in sys.modules


def test_a_task_that_would_not_be_found_again_is_refused_before_anything_is_written(task: Task, tmp_path: Path) -> None:
    unregistered = Task(**{name: getattr(task, name) for name in Task.__dataclass_fields__} | {"name": "elsewhere"})
    with pytest.raises(UserError, match="unknown task 'elsewhere'"):
        write_states(tmp_path / "data", unregistered, sampled_states(unregistered, 2, seed=0))
    assert list(tmp_path.iterdir()) == []
