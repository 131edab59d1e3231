"""Plans: every mistake in a sweep file gets one message that helps, good files are resolved, and trials keep their ids."""

import importlib.util
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_FOLDER, embedded_manifest
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.sweeping.config.plan import Plan, plan_of
from vlm_rm_sweeps.sweeping.config.screening import Screening, load_plan
from vlm_rm_sweeps.sweeping.config.sections import Prompt
from vlm_rm_sweeps.sweeping.config.trial import TRUE_REWARD, UNTRAINED, Trial
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import Rendering, machine_profile
from vlm_rm_sweeps.training.algorithms.base import Algorithm
from vlm_rm_sweeps.training.algorithms.registry import find_algorithm

SWEEPS = Path(__file__).parents[3] / "sweeps"
GOOD: dict[str, Any] = {
    "name": "good",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0.0, 0.5],
    "steps": 1_000,
}
PENDULUM = {"id": "Pendulum-v1", "episode_steps": 20}
WORDING = {"id": "mine", "goal": "an upright pole", "baseline": "a pole"}


def write(folder: Path, **changes: Any) -> Path:
    """A good sweep file with some keys changed; None removes a key."""
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in (GOOD | changes).items() if value is not None}))
    return file


def problem_with(file: Path) -> str:
    """The message about a bad file, less the file's name, which it must begin with."""
    with pytest.raises(UserError) as caught:
        loaded(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


def loaded(file: Path) -> Plan:
    plan = load_plan(file)
    assert isinstance(plan, Plan)
    return plan


def made(**changes: Any) -> Plan:
    return plan_of(GOOD | changes)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        pytest.param(
            {"model": ["x"]}, ["unknown key 'model' (value ['x'])", "did you mean 'models'?", "alphas"], id="unknown key"
        ),
        pytest.param(
            {"settings": {"learning_rat": 0.1}},
            ["unknown key 'settings.learning_rat' (value 0.1)", "settings of dqn", "did you mean 'learning_rate'?", "gamma"],
            id="unknown key in settings",
        ),
        pytest.param(
            {"pool": {"server": 2}},
            ["unknown key 'pool.server' (value 2)", "did you mean 'servers'?", "micro_batch"],
            id="unknown key in pool",
        ),
        pytest.param(
            {"pool": {"gpus": 1.5}},
            ["pool.gpus = 1.5: expected a whole number of GPUs, or a fraction of one"],
            id="more than a GPU and less than two",
        ),
        pytest.param(
            {"prompts": [WORDING, WORDING | {"id": "b", "gaol": "x"}]},
            ["unknown key 'prompts.1.gaol' (value 'x')", "did you mean 'goal'?", "baseline"],
            id="unknown key in a prompt",
        ),
        pytest.param(
            {"zzzzz": 1}, ["unknown key 'zzzzz' (value 1): expected one of name, task"], id="unknown key like no other"
        ),
        pytest.param(
            {"task": "cartpole-uprigth"},
            ["task = 'cartpole-uprigth'", "did you mean 'cartpole-upright'?", "expected one of cartpole-upright"],
            id="unknown task",
        ),
        pytest.param(
            {"models": ["embedded/tiny", "embedded/smal"]},
            ["models = ", "'embedded/smal'", "did you mean 'embedded/small'?", "embedded/small, embedded/tiny"],
            id="unknown embedded size",
        ),
        pytest.param(
            {"models": ["ViT-B-33/openai"]}, ["models = ", "'ViT-B-33'", "did you mean 'ViT-B-32'?"], id="unknown architecture"
        ),
        pytest.param(
            {"models": ["ViT-B-32/laion2b_s34b_b79"]},
            ["models = ", "'laion2b_s34b_b79'", "did you mean 'laion2b_s34b_b79k'?", "checkpoint file"],
            id="unknown tag",
        ),
        pytest.param(
            {"models": ["tiny"]}, ["models = ['tiny']", "expected `architecture/pretrained`", "embedded/small"], id="no tag"
        ),
        pytest.param({"algorithm": "dqnn"}, ["algorithm = 'dqnn'", "did you mean 'dqn'?", "sac"], id="unknown algorithm"),
        pytest.param({"alphas": [0.5, 1.5]}, ["alphas = [0.5, 1.5]", "alpha must be in [0, 1], got 1.5"], id="alpha above 1"),
        pytest.param({"alphas": [-0.1]}, ["alphas = [-0.1]", "alpha must be in [0, 1], got -0.1"], id="alpha below 0"),
        pytest.param({"alphas": [float("nan")]}, ["alphas.0 = nan", "finite number"], id="alpha not a number"),
        pytest.param({"alphas": ["half"]}, ["alphas.0 = 'half'", "valid number"], id="alpha a word"),
        pytest.param(
            {"prompts": [WORDING | {"goal": " "}]}, ["prompts.0: ", "goal prompts [' ']", "none of them empty"], id="empty goal"
        ),
        pytest.param(
            {"prompts": [WORDING | {"baseline": []}]}, ["prompts.0: ", "baseline prompts []", "at least one"], id="no baseline"
        ),
        pytest.param({"prompts": [WORDING | {"id": "a b"}]}, ["prompts.0.id = 'a b'", "pattern"], id="prompt id with a space"),
        pytest.param({"models": []}, ["models = []", "at least 1"], id="no models"),
        pytest.param({"alphas": []}, ["alphas = []", "at least 1"], id="no alphas"),
        pytest.param({"models": [], "alphas": [], "true_reward": False}, ["no models", "at least one trial"], id="no trials"),
        pytest.param(
            {"models": [], "alphas": [], "epic_states": 20}, ["no models that `epic_states`"], id="nothing to measure"
        ),
        pytest.param({"seeds": []}, ["seeds = []", "at least 1"], id="no seeds"),
        pytest.param({"models": ["embedded/tiny"] * 2}, ["duplicate value 'embedded/tiny' in `models`"], id="repeated model"),
        pytest.param({"alphas": [0.5, 0, 0.50, 0.5]}, ["duplicate value 0.5 in `alphas`"], id="repeated alpha"),
        pytest.param({"seeds": [0, 1, 1]}, ["duplicate value 1 in `seeds`"], id="repeated seed"),
        pytest.param(
            {"prompts": [WORDING, WORDING | {"goal": "x"}]}, ["duplicate value 'mine' in `prompts`"], id="repeated prompt id"
        ),
        pytest.param(
            {"seeds": list(range(40))},
            ["120 trials", "max_trials = 100", "shorten an axis or raise max_trials"],
            id="too many trials",
        ),
        pytest.param({"max_trials": 2}, ["3 trials", "max_trials = 2"], id="more trials than its own limit"),
        pytest.param(
            {"prompts": [WORDING | {"goal": "a pole"}]},
            ["prompts.0: ", "goal and baseline are the same, ['a pole']", "'pole and cart'"],
            id="goal equal to baseline",
        ),
        pytest.param(
            {"prompts": [WORDING | {"goal": "A  Pole"}]}, ["prompts", "A  Pole", "same"], id="goal that reads like the baseline"
        ),
        pytest.param(
            {"prompts": [WORDING | {"goal": "pole " * 31}]},
            ["pole pole", "32 tokens", "embedded/tiny", "shorten it"],
            id="long prompt",
        ),
        pytest.param(
            {"models": ["ViT-B-32/openai"], "prompts": [WORDING | {"baseline": ["x", "pole " * 76]}]},
            ["pole pole", "77 tokens", "ViT-B-32/openai", "shorten it"],
            id="long prompt for a large model",
        ),
        pytest.param({"steps": None}, ["'steps' is missing"], id="missing key"),
        pytest.param(
            {"prompts": [{"id": "a", "goal": "x"}]}, ["'prompts.0.baseline' is missing"], id="missing key in a prompt"
        ),
        pytest.param({"steps": -5}, ["steps = -5", "greater than 0"], id="negative steps"),
        pytest.param({"steps": "many"}, ["steps = 'many'", "integer"], id="steps a word"),
        pytest.param({"name": "a b/c"}, ["name = 'a b/c'", "pattern"], id="name that is no folder"),
        pytest.param({"name": "../up"}, ["name = '../up'", "pattern"], id="name that leads out"),
        pytest.param(
            {"pool": {"precision": "fp64"}}, ["pool.precision = 'fp64'", "'fp32', 'bf16' or 'fp16'"], id="unknown precision"
        ),
        pytest.param(
            {"pool": {"servers": 0}},
            ["pool.servers = 0: expected a number of servers from 1 to 1024, or `{min"],
            id="no servers",
        ),
        pytest.param(
            {"pool": {"servers": {"min": 3, "max": 2}}},
            ["pool.servers: min 3, max 2: expected a `max` that is"],
            id="server range",
        ),
        pytest.param({"settings": {"gamma": 1.5}}, ["settings.gamma = 1.5", "less than 1"], id="setting out of range"),
        pytest.param({"settings": {"hidden": [-3]}}, ["settings.hidden", "-3"], id="layer of negative width"),
        pytest.param({"settings": {"hidden": []}}, ["settings.hidden = []: expected at least 1 of them"], id="no layers"),
        pytest.param({"settings": {"hidden": [10**9]}}, ["settings.hidden.0", "less than or equal to 65536"], id="wide layer"),
        pytest.param(
            {"settings": {"envs": 10**9}}, ["settings.envs = 1000000000", "or equal to 1024"], id="many sub-environments"
        ),
        pytest.param(
            {"settings": {"buffer": 10**15}}, ["settings.buffer", "or equal to 1000000000"], id="buffer beyond memory"
        ),
        pytest.param({"settings": {"learning_rate": math.inf}}, ["settings.learning_rate", "a finite number"], id="infinite"),
        pytest.param(
            {"settings": {"updates_per_step": 1e-300}}, ["settings.updates_per_step", "or equal to 0.000001"], id="no updates"
        ),
        pytest.param(
            {"steps": 2_000, "settings": {"updates_per_step": 1e-5}},
            [
                "would train 99,968 steps, as it samples 99,968 at once",
                "10 times `steps` or `steps_per_result` (2,000 and 1,000)",
            ],
            id="much longer than asked for",
        ),
        pytest.param({"control": "position"}, ["control = 'position': expected keys with their values"], id="control a word"),
        pytest.param({"models": ["EMBEDDED/tiny"]}, ["did you mean 'embedded'?"], id="model in capitals"),
        pytest.param({"seeds": [-1]}, ["seeds", "-1"], id="negative seed"),
        pytest.param({"task": None}, ["either `task`", "or `env`", "found neither"], id="nothing to learn"),
        pytest.param({"env": PENDULUM}, ["either `task`", "or `env`", "found both"], id="task and env"),
        pytest.param(
            {"task": None, "env": PENDULUM}, ["prompts: missing", "`env` has none of its own"], id="env without prompts"
        ),
        pytest.param(
            {"task": None, "env": PENDULUM | {"id": "Pendulm-v1"}, "prompts": [WORDING]},
            ["env: ", "unknown environment 'Pendulm-v1'", "did you mean 'Pendulum-v1'?"],
            id="unknown environment",
        ),
        pytest.param(
            {"task": None, "env": PENDULUM | {"succes": "reward > 0"}, "prompts": [WORDING]},
            ["unknown key 'env.succes'", "did you mean 'success'?", "episode_steps"],
            id="unknown key in env",
        ),
        pytest.param(
            {"algorithm": "sac"},
            ["algorithm = 'sac'", "cartpole-upright", "Discrete(2)", "expected dqn or ppo"],
            id="algorithm for others",
        ),
        pytest.param({"settings": {"tau": 0.1}}, ["unknown key 'settings.tau'", "settings of dqn"], id="setting of the other"),
        pytest.param(
            {"task": "mountaincar-summit", "settings": {"entropy": "none"}}, ["settings.entropy", "'none'"], id="entropy a word"
        ),
        pytest.param(
            {"textures": ["modified"]}, ["unknown textures 'modified'", "expected one of original"], id="unknown textures"
        ),
        pytest.param({"cameras": ["side"]}, ["unknown camera 'side'", "expected one of default"], id="unknown camera"),
        pytest.param({"cameras": ["default", "default"]}, ["duplicate value 'default' in `cameras`"], id="camera twice"),
        pytest.param({"profile": "slow"}, ["profile = 'slow'", "'fast' or 'full'"], id="unknown profile"),
    ],
)
def test_bad_file_gets_one_message(changes: dict[str, Any], parts: list[str], tmp_path: Path) -> None:
    message = problem_with(write(tmp_path, **changes))
    for part in parts:
        assert part in message
    assert "\n" not in message
    assert "pydantic" not in message


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    message = problem_with(write(tmp_path, task="cartpole", alphas=[7], foo=1))
    assert all(part in message for part in ("task = 'cartpole'", "alphas = [7]", "unknown key 'foo'"))


def test_a_list_is_not_called_short_because_of_the_bad_values_in_it(tmp_path: Path) -> None:
    message = problem_with(write(tmp_path, seeds=[-1]))
    assert message == "seeds.0 = -1: input should be greater than or equal to 0"
    assert "at least 1" in problem_with(write(tmp_path, seeds=[]))


def test_a_message_has_a_bounded_length(tmp_path: Path) -> None:
    misnamed = {f"{'x' * 3_000}{number}": "y" * 3_000 for number in range(30)}
    message = problem_with(write(tmp_path, **misnamed))
    assert "and 20 more problems" in message
    assert message.count("expected one of") == 1
    assert len(message) < 4_000


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param("models: [a", ["is not YAML", "line 1"], id="not YAML"),
        pytest.param("name: \x07", ["is not YAML"], id="control character"),
        pytest.param("- name\n- task\n", ["expected keys such as `name`", "found list"], id="list"),
        pytest.param("quickstart", ["expected keys such as `name`", "found str"], id="word"),
        pytest.param("", ["expected keys such as `name`", "found NoneType"], id="empty"),
        pytest.param("1: 2", ["'models' is missing", "keys should be strings"], id="key that is a number"),
        pytest.param("name: 2001-99-99", ["means a date"], id="date that does not exist"),
    ],
)
def test_file_that_is_no_mapping_is_refused(text: str, parts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    message = problem_with(file)
    assert all(part in message for part in parts)


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_bytes("name: café\n".encode("latin-1"))
    assert "UTF-8" in problem_with(file)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    message = problem_with(tmp_path / "none.yaml")
    assert "cannot be read (No such file or directory)" in message
    assert "sweeps/quickstart.yaml" in message
    assert "cannot be read (Is a directory)" in problem_with(tmp_path)


def test_yaml_is_loaded_safely(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    file = tmp_path / "sweep.yaml"
    file.write_text(f"name: !!python/object/apply:os.mkdir [{marker}]\n")
    yaml.unsafe_load(file.read_text())
    assert marker.exists(), "the tag is harmless, so this test shows nothing"
    marker.rmdir()
    assert "expected a value without a tag" in problem_with(file)
    assert not marker.exists()


def test_trials_are_the_whole_grid(tmp_path: Path) -> None:
    wordings = [WORDING, {"id": "other", "goal": ["up", "upright"], "baseline": "a pole"}]
    file = write(tmp_path, models=["embedded/tiny", "embedded/small"], prompts=wordings, seeds=[0, 1, 2])
    trials = loaded(file).trials
    references, scored = trials[:3], trials[3:]
    assert [(trial.model_id, trial.seed, trial.prompt, trial.spec()) for trial in references] == [
        (TRUE_REWARD, seed, None, None) for seed in (0, 1, 2)
    ]
    assert len(scored) == 2 * 2 * 2 * 3
    combinations = {(trial.model_id, trial.alpha, trial.prompt_id, trial.seed) for trial in scored}
    assert len(combinations) == len(scored)
    assert RewardSpec(("up", "upright"), ("a pole",), 0.5) in {trial.spec() for trial in scored}
    assert len(loaded(write(tmp_path, true_reward=False)).trials) == 2


def test_references_come_first_for_each_seed() -> None:
    trials = made(true_reward=True, untrained=True, seeds=[3, 4]).trials
    assert [(trial.model_id, trial.seed) for trial in trials[:4]] == [
        (TRUE_REWARD, 3),
        (TRUE_REWARD, 4),
        (UNTRAINED, 3),
        (UNTRAINED, 4),
    ]
    assert trials[2].label == "untrained, seed 3"
    assert len({trial.trial_id for trial in trials}) == len(trials)


def test_trial_ids_are_unique() -> None:
    prompts = [WORDING, WORDING | {"id": "b"}, WORDING | {"id": "c", "goal": "up"}]
    trials = made(models=["embedded/tiny", "embedded/small"], alphas=[0, 0.1, 1], prompts=prompts, seeds=[0, 1]).trials
    assert len({trial.trial_id for trial in trials}) == len(trials) == 2 + 2 * 3 * 3 * 2
    assert all(re.fullmatch("[0-9a-f]{10}", trial.trial_id) for trial in trials)


def test_trial_of_other_wording_is_another_trial_even_under_the_same_prompt_id() -> None:
    reworded = Prompt(**(WORDING | {"goal": "up"}))
    assert (
        Trial.of("embedded/tiny", 0.5, reworded, Rendering(), 0).trial_id
        != Trial.of("embedded/tiny", 0.5, Prompt(**WORDING), Rendering(), 0).trial_id
    )


def test_trial_ids_do_not_depend_on_the_order_or_on_the_rest_of_the_grid() -> None:
    other = WORDING | {"id": "b", "goal": "up"}
    models = ["embedded/tiny", "embedded/small"]
    one = made(models=models, prompts=[WORDING, other], seeds=[0, 1]).trials
    turned = made(models=models[::-1], alphas=[0.5, 0], prompts=[other, WORDING], seeds=[1, 0]).trials
    assert {trial.trial_id: trial for trial in one} == {trial.trial_id: trial for trial in turned}
    fewer = made(models=["embedded/small"], alphas=[0.5], prompts=[other], seeds=[1]).trials
    assert {trial.trial_id for trial in fewer} < {trial.trial_id for trial in one}


def test_trial_ids_stay_the_same_from_release_to_release() -> None:
    # A sweep that was interrupted is found again by these; change them only together with a way to resume older sweeps.
    assert Trial.of("embedded/tiny", 0.5, Prompt(**WORDING), Rendering(), 0).trial_id == "251f8f8543"
    assert Trial.of(TRUE_REWARD, 0.0, None, Rendering(), 3).trial_id == "81e9999671"


def test_trials_survive_the_way_through_plain_data() -> None:
    wordings = [{"id": "other", "goal": ["up", "upright"], "baseline": "a pole"}]
    trials = made(prompts=wordings).trials
    for trial in trials:
        plain = json.loads(json.dumps(trial.to_dict()))
        assert Trial.from_dict(plain) == trial
        assert Trial.from_dict(plain).spec() == trial.spec()
    assert {trial.prompt is None for trial in trials} == {True, False}


def test_prompts_default_to_the_tasks() -> None:
    task = find_task("cartpole-upright")
    (_, first, second) = made().trials
    assert first.spec() == RewardSpec((task.goal_prompt,), (task.baseline_prompt,), 0.0)
    assert second.spec() == RewardSpec((task.goal_prompt,), (task.baseline_prompt,), 0.5)
    assert first.prompt_id == "task"
    assert made(prompts=[]).trials == made().trials


def test_labels_name_what_differs() -> None:
    assert [trial.label for trial in made(seeds=[4]).trials] == [
        "true reward, seed 4",
        "embedded/tiny, alpha 0, prompt task, seed 4",
        "embedded/tiny, alpha 0.5, prompt task, seed 4",
    ]


@pytest.mark.parametrize("file", sorted(SWEEPS.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_sweeps_load(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SWEEPS.parent)  # where the paths in them start
    found = load_plan(file)
    plan = found.plan if isinstance(found, Screening) else found
    assert plan.sweep.name == file.stem
    assert plan.trials


def test_quick_start_needs_nothing_but_the_package() -> None:
    plan = loaded(SWEEPS / "quickstart.yaml")
    assert all(model_id.startswith("embedded/") for model_id in plan.models)
    assert plan.sweep.pool.gpus == plan.sweep.trial.gpus == 0
    assert plan.sweep.true_reward
    task = plan.task
    assert (task.goal_prompt,) in [prompt.goal for prompt in plan.prompts]


def test_the_papers_models_load_in_a_sweep(tmp_path: Path) -> None:
    models = ["RN50/openai", "ViT-L-14/laion2b_s32b_b82k", "ViT-H-14/laion2b_s32b_b79k", "ViT-bigG-14/laion2b_s39b_b160k"]
    sweep = loaded(write(tmp_path, models=models))
    assert list(sweep.models) == models
    assert len(sweep.trials) == 1 + 4 * 2


def test_plan_names_trials_models_and_sizes() -> None:
    sweep = made(models=["embedded/tiny", "embedded/small"], pool={"precision": "bf16"})
    plan = sweep.describe()
    assert plan.startswith("5 trials of 1,000 environment steps, 5,000 in all")
    assert "4 trials of 1,000 environment steps, 3,000 in all" in made(untrained=True).describe()
    assert all(trial.trial_id in plan and trial.label in plan for trial in sweep.trials)
    millions = embedded_manifest(EMBEDDED_FOLDER)["small"]["parameters"] / 1e6
    assert f"embedded/small: {millions:.2f} M parameters, 1 MB of weights in bf16" in plan


def test_an_environment_stands_in_the_place_of_a_task(tmp_path: Path) -> None:
    sweep = loaded(write(tmp_path, task=None, env=PENDULUM | {"success": "obs[0] > 0.9"}, prompts=[WORDING]))
    task = sweep.task
    assert (task.name, task.episode_steps, task.success_criterion) == ("Pendulum-v1", 20, "obs[0] > 0.9")
    assert "sac learns Pendulum-v1 in episodes of 20 steps" in sweep.describe()
    again = tmp_path / "resolved.yaml"
    again.write_text(yaml.safe_dump(sweep.sweep.model_dump(mode="json")))
    assert loaded(again).sweep == sweep.sweep


def test_references_need_no_models() -> None:
    plan = made(models=[], alphas=[], untrained=True, seeds=[0, 1])
    assert [(trial.model_id, trial.seed) for trial in plan.trials] == [
        *((TRUE_REWARD, 0), (TRUE_REWARD, 1)),
        *((UNTRAINED, 0), (UNTRAINED, 1)),
    ]
    assert [trial.trial_id for trial in plan.trials] == [
        trial.trial_id for trial in made(untrained=True, seeds=[0, 1]).trials[:4]
    ]
    assert "pools" not in plan.describe()


def test_the_control_is_the_tasks_and_keeps_the_trials_ids(tmp_path: Path) -> None:
    changed = {"task": "humanoid-kneeling", "textures": ["modified"], "cameras": ["paper"]}
    plain = made(**changed)
    plan = made(**changed, control={"actions": "position", "observations": "proprioception", "action_repeat": 2})
    assert plan.task.make_env(None).observation_space.shape == (45,)
    assert plan.task.action_space.high.tolist() == [1.0] * 17  # type: ignore[attr-defined]
    assert plan.trials == plain.trials
    assert "control: actions position, observations proprioception, action_repeat 2" in plan.describe()
    assert "control" not in plain.describe()
    again = tmp_path / "resolved.yaml"
    again.write_text(yaml.safe_dump(plan.sweep.model_dump(mode="json")))
    assert loaded(again).sweep == plan.sweep


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ({"actions": "position"}, "control: actions: position needs a robot in MuJoCo, and UprightCartPole is none"),
        ({"actions": "postion"}, "control.actions = 'postion': input should be 'torque' or 'position'"),
        ({"kd": 1.0}, "control: kd 1 has no effect on torques"),
        ({"action_repeat": 0}, "control.action_repeat = 0: input should be greater than 0"),
        ({"action_repeat": 10**9}, "control.action_repeat = 1000000000: input should be less than or equal to 1000"),
        ({"actions": "position", "kp": math.nan}, "control.kp = nan: input should be"),
    ],
)
def test_a_control_that_does_not_fit_is_one_message(tmp_path: Path, control: dict[str, Any], message: str) -> None:
    assert message in problem_with(write(tmp_path, control=control))


@pytest.mark.parametrize(("task", "name"), [("cartpole-upright", "dqn"), ("mountaincar-summit", "sac")])
def test_the_algorithm_follows_from_the_actions(task: str, name: str) -> None:
    plan = made(task=task, settings={"learning_rate": 0.5})
    algorithm: type[Algorithm] = find_algorithm(name)
    assert plan.sweep.algorithm == name
    assert plan.algorithm == algorithm.model_validate({"learning_rate": 0.5})
    assert made(task=task, algorithm=name).algorithm == algorithm()
    # The stored sweep file names every setting.
    assert plan.sweep.settings == plan.algorithm.model_dump()


def test_renderings_are_compared_like_every_other_axis() -> None:
    """The paper's ablation of textures and camera; what is not compared is not named."""
    sweep = made(task="humanoid-kneeling", alphas=[0.0], textures=["original", "modified"], cameras=["default", "paper"])
    reference, *trials = sweep.trials
    assert reference.label == "true reward, seed 0"
    assert [(trial.rendering.textures, trial.rendering.camera) for trial in trials] == [
        ("original", "default"),
        ("original", "paper"),
        ("modified", "default"),
        ("modified", "paper"),
    ]
    assert "original textures, paper camera" in trials[1].label
    assert len({trial.trial_id for trial in trials}) == 4
    assert Trial.from_dict(trials[1].to_dict()) == trials[1]
    (alone,) = made(task="humanoid-kneeling", alphas=[0.0], true_reward=False).trials
    assert "textures" not in alone.label
    assert alone.rendering == find_task("humanoid-kneeling").rendering(profile=sweep.sweep.profile)


def test_the_profile_is_the_machines_if_the_file_says_none() -> None:
    assert made(profile=None).sweep.profile == made().sweep.profile == machine_profile()
    assert {trial.rendering.profile for trial in made(profile="full").trials} == {"full"}


def test_the_papers_runs_are_there_each_with_a_fast_variant() -> None:
    runs = {file.stem for file in SWEEPS.glob("paper_*.yaml")}
    full = {name for name in runs if not name.endswith("_fast")}
    assert len(full) == 12
    assert runs == full | {f"{name}_fast" for name in full}
    for name in full:
        sweep = loaded(SWEEPS / f"{name}.yaml")
        task = sweep.task
        assert [(prompt.goal, prompt.baseline) for prompt in sweep.prompts] == [((task.goal_prompt,), (task.baseline_prompt,))]


def test_the_papers_update_ratio() -> None:
    """100 updates for each 3 200 transitions, not for each 100."""
    settings = loaded(SWEEPS / "paper_humanoid_kneeling.yaml").sweep.settings
    transitions = settings["envs"] * settings["rollout_steps"]
    assert (transitions, settings["updates_per_step"] * transitions) == (3200, 100)


@pytest.mark.parametrize("file", sorted(SWEEPS.glob("*_fast.yaml")), ids=lambda file: file.stem)
def test_fast_sweeps_need_no_gpu_and_no_download(file: Path) -> None:
    plan = loaded(file)
    assert all(model_id.startswith("embedded/") for model_id in plan.models)
    assert plan.sweep.pool.gpus == plan.sweep.trial.gpus == 0
    # Two trials side by side on 2 cores; the servers take what these leave.
    assert (plan.sweep.trial.cpus, plan.sweep.pool.cpus) == (1, 0)


def test_gpus_that_trials_reserve_and_do_not_use_are_told() -> None:
    keys = {"name": "x", "models": ["embedded/tiny"], "alphas": [0], "steps": 10, "trial": {"gpus": 0.5}}
    told = [
        any(remark.startswith("trial.gpus = 0.5: trials learn on CPUs") for remark in plan_of(keys | {"task": task}).remarks())
        for task in ("cartpole-upright", "humanoid-kneeling")
    ]
    assert told == [True, False]


def test_a_learner_on_a_gpu_uses_the_one_that_its_trial_reserves() -> None:
    keys = {"name": "x", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0], "steps": 10}
    plan = plan_of(keys | {"trial": {"gpus": 0.5, "learner": "gpu"}})
    assert not any(remark.startswith("trial.gpus") for remark in plan.remarks())
    assert "each trial reserves 1 CPUs and 0.5 GPUs and learns on them" in plan.describe()
    with pytest.raises(
        UserError, match=r"trial\.learner is gpu, and trial\.gpus is 0: .* `trial: \{gpus: 0\.25, learner: gpu\}`"
    ):
        plan_of(keys | {"trial": {"learner": "gpu"}})


def test_only_some_combinations_of_the_grid() -> None:
    chosen = [{"model": "embedded/tiny", "alpha": 0.5, "prompt": "task"}]
    sweep = made(seeds=[0, 1], only=chosen)
    assert [(trial.alpha, trial.seed) for trial in sweep.trials if trial.prompt] == [(0.5, 0), (0.5, 1)]
    whole = {trial.trial_id for trial in made(seeds=[0, 1]).trials}
    assert {trial.trial_id for trial in sweep.trials} < whole
    assert made(models=["embedded/tiny", "embedded/small"], only=chosen).trained_models == ("embedded/tiny",)


@pytest.mark.parametrize("wrong", [{"model": "embedded/small"}, {"alpha": 0.25}, {"prompt": "other"}])
def test_combinations_that_are_not_in_the_grid_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not in the grid"):
        made(only=[{"model": "embedded/tiny", "alpha": 0.5, "prompt": "task"} | wrong])


AUDITED = {"name": "x", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.0, 0.5], "steps": 10}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"audit": {"alpha": [0]}}, "did you mean 'alphas'?"),
        ({"audit": {"alphas": [2]}}, "alpha must be in [0, 1], got 2"),
        ({"audit": {"alphas": [0, 0]}}, "duplicate value 0.0 in `audit.alphas`"),
        ({"audit": {"prompts": ["tsk"]}}, "audit.prompts: unknown prompt id 'tsk': did you mean 'task'?"),
        ({"audit": {"models": ["embedded/smal"]}}, "did you mean 'embedded/small'?"),
        ({"audit": {"models": ["ViT-B-32/laion2b_s34b_b79k"]}}, "a gold model sees the frames that the trial's model sees"),
        ({"audit": {"every": 0}}, "greater than 0"),
        ({"epic_states": 5}, "expected 0, for none, or 10 to 1,000,000"),
        ({"epic_states": -1}, "expected 0, for none, or 10 to 1,000,000"),
        (
            {"epic_states": "results/states"},
            "epic_states = 'results/states': expected a number of random states, or a labelled data set",
        ),
        (
            {"epic_states": {"states": "x", "truht": "raters"}},
            "yaml: unknown key 'epic_states.truht' (value 'raters'): did you",
        ),
        ({"epic_states": {"truth": "raters"}}, "yaml: 'epic_states.states' is missing"),
        (
            {"task": "mountaincar-summit", "textures": ["original", "modified"], "epic_states": {"states": "x"}},
            "the images in x are drawn in one way, and the sweep compares 2",
        ),
        (
            {
                "epic_states": 50,
                "task": None,
                "env": {"id": "Acrobot-v1", "episode_steps": 4},
                "prompts": [{"id": "up", "goal": "an arm up", "baseline": "an arm"}],
            },
            "its states cannot be sampled",
        ),
    ],
)
def test_an_audit_or_measurement_that_cannot_be_is_refused(changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(AUDITED | changes))
    with pytest.raises(UserError) as caught:
        loaded(file)
    assert part in str(caught.value)


def test_the_plan_says_what_rewards_are_measured_on() -> None:
    labelled = plan_of(AUDITED | {"epic_states": {"states": "results/states", "truth": "raters"}})
    assert "the labelled states in results/states (truth: raters) are encoded once by each model" in labelled.describe()
    assert plan_of(labelled.sweep.model_dump(mode="json")).sweep == labelled.sweep
    assert "50 random states are encoded" in plan_of(AUDITED | {"epic_states": 50}).describe()


def test_each_trial_is_audited_by_the_specs_that_are_not_its_own() -> None:
    sweep = plan_of(AUDITED | {"audit": {"alphas": [0, 1], "models": ["embedded/small"]}})
    reference, *trials = sweep.trials
    assert sweep.audit_specs(reference) == {}
    assert [list(sweep.audit_specs(trial)) for trial in trials] == [["alpha_1_task"], ["alpha_0_task", "alpha_1_task"]]
    assert list(sweep.models) == ["embedded/tiny", "embedded/small"]
    assert {spec.alpha for spec in sweep.served_specs("embedded/tiny")} == {0.0, 0.5, 1.0}
    assert "audited, 500 frames of them by embedded/small" in sweep.describe()


PAPERS_MODELS = ["RN50/openai", "ViT-L-14/laion2b_s32b_b82k", "ViT-H-14/laion2b_s32b_b79k", "ViT-bigG-14/laion2b_s39b_b160k"]


def test_the_scaling_sweep_takes_the_papers_models_instead_of_the_embedded(tmp_path: Path) -> None:
    """Nothing but `models` is changed: the judge is the largest of them."""
    keys = yaml.safe_load((Path(__file__).parents[3] / "sweeps" / "model_scaling.yaml").read_text())
    assert loaded(Path(__file__).parents[3] / "sweeps" / "model_scaling.yaml").sweep.audit.models == ("embedded/large",)  # type: ignore[union-attr]
    file = tmp_path / "papers.yaml"
    file.write_text(yaml.safe_dump(keys | {"models": PAPERS_MODELS}))
    sweep = loaded(file)
    assert list(sweep.models) == PAPERS_MODELS
    assert "500 frames of them by ViT-bigG-14/laion2b_s39b_b160k" in sweep.describe()
    file.write_text(yaml.safe_dump(sweep.sweep.model_dump(mode="json")))
    assert loaded(file).sweep == sweep.sweep


@pytest.mark.parametrize(
    ("steps", "every", "points"), [(8000, None, None), (8000, 2000, 4), (8000, 1600, None), (3000, 100, 3), (100, None, 1)]
)
def test_too_few_audit_points_for_an_alarm_are_said_before_it_starts(steps: int, every: int | None, points: int | None) -> None:
    audit = {"alphas": [0.0, 1.0]} | ({"every": every} if every else {})
    sweep = plan_of(AUDITED | {"steps": steps, "audit": audit, "settings": {"learning_starts": 0}})
    expected = [] if points is None else [f"audit: at most {points} audit points"]
    assert [remark[: len(start)] for remark, start in zip(sweep.remarks(), expected, strict=True)] == expected
    assert all(remark in sweep.describe() for remark in sweep.remarks())


def test_a_sweep_that_ends_before_learning_starts_is_told_so() -> None:
    sweep = made(steps=5_000, settings={"learning_starts": 5_000})
    assert "settings.learning_starts = 5,000: trials of 5,000 steps end before anything is learned" in sweep.describe()
    assert made(steps=5_000, settings={"learning_starts": 4_999}).remarks() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 8_000}, "each trial trains 8,192 steps, 8,000 rounded up to whole results of 1,024"),
        ({"steps": 1_024}, "each trial trains 1,024 steps, as asked for"),
        ({"steps": 1_000, "trial": {"env_runners": 3}}, "1,152 steps, 1,000 rounded up to whole results of 1,152"),
        # An update for every 500 steps, so 8 rollouts of 64 steps before each.
        ({"steps": 64, "steps_per_result": 64, "settings": {"updates_per_step": 0.002}}, "512 steps, 64 rounded up"),
        (
            {"algorithm": "ppo", "steps": 1_000, "settings": {"envs": 8}},
            "1,024 steps, 1,000 rounded up to whole results of 1,024",
        ),
        ({}, "its best policy is chosen by its training episodes, with exploration"),
        (
            {"steps": 8_000, "evaluation_episodes": 5, "trial": {"evaluation_interval": 2_000}},
            "by 5 greedy episodes about every 2,000 steps, 4,000 environment steps in all",
        ),
    ],
)
def test_how_steps_are_rounded_and_policies_chosen_is_said_before_it_starts(changes: dict[str, Any], said: str) -> None:
    assert said in made(**changes).describe()


@pytest.mark.parametrize("name", ["model_scaling", "paper_model_scaling", "paper_model_scaling_fast"])
def test_the_scaling_sweeps_measure_epic_before_training(name: str) -> None:
    plan = loaded(Path(__file__).parents[3] / "sweeps" / f"{name}.yaml").describe()
    assert "random states are encoded once by each model" in plan


@pytest.mark.parametrize("model_id", ["ViT-B-16-SigLIP/webli", "roberta-ViT-B-32/laion2b_s12b_b32k"])
def test_a_model_that_needs_a_package_says_which(model_id: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("transformers") is not None:
        pytest.skip("transformers is installed here")
    message = problem_with(write(tmp_path, models=[model_id]))
    assert f"model {model_id!r} needs transformers and sentencepiece, not installed here" in message
    assert "`pip install transformers sentencepiece`" in message
    assert "\n" not in message


def test_half_precision_on_a_cpu_is_said_to_be_slow() -> None:
    assert [
        remark
        for remark in made(pool={"precision": "fp16"}).remarks()
        if "fp16 on a CPU is slower than fp32, on most several times" in remark
    ]
    assert [remark for remark in made(pool={"precision": "bf16"}).remarks() if "AVX512_BF16" in remark]
    for pool in ({"precision": "fp32"}, {"precision": "fp16", "gpus": 1}):
        assert not [remark for remark in made(pool=pool).remarks() if remark.startswith("pool")]


def test_a_backend_that_cannot_run_a_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.rewards.backends.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pool: backend 'onnxruntime' needs onnxruntime and onnx, not installed here"):
        made(pool={"backend": "onnxruntime"})
    with pytest.raises(UserError, match=r"pool: backend 'folded' is for CLIP models, and own_rewards:"):
        made(models=["own_rewards:Brightness"], pool={"backend": "folded"})
    assert "in fp32 by folded" in made(pool={"backend": "folded"}).describe()


def test_servers_that_nothing_bounds_are_said() -> None:
    unbounded = made(pool={"servers": {"max": 4}}).remarks()
    assert [remark for remark in unbounded if remark.startswith("pool.servers: up to 4 servers of each model share the memory")]
    for pool in ({"servers": 4}, {"servers": {"min": 4, "max": 4}}, {"servers": {"max": 4}, "cpus": 1}):
        assert not [remark for remark in made(pool=pool).remarks() if remark.startswith("pool")]


def test_a_best_policy_that_is_chosen_by_another_ones_episodes_is_said() -> None:
    averaged: dict[str, Any] = {
        "task": "mountaincar-summit", "algorithm": "sac", "settings": {"policy_averaging": 0.9}, "steps": 8_000,
    }  # fmt: skip
    said = "settings.policy_averaging: the best policy is chosen by training episodes"
    assert [remark for remark in made(**averaged).remarks() if remark.startswith(said)]
    evaluated = averaged | {"trial": {"evaluation_interval": 4_000}}
    for changes in (evaluated, averaged | {"settings": {}}):
        assert not [remark for remark in made(**changes).remarks() if remark.startswith("settings.policy_averaging")]


def test_a_grid_that_is_too_large_is_refused_before_its_trials_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.sweeping.config.plan._trials", lambda *_: pytest.fail("they are made"))
    with pytest.raises(UserError, match=r"the grid has 800000 trials, more than max_trials = \d+"):
        made(alphas=[0.0, 0.5], seeds=list(range(400_000)), true_reward=False, untrained=False, models=["embedded/tiny"])


@pytest.mark.parametrize(
    ("steps", "result", "every"), [(8_000, 1_000, 3_000), (8_000, 1_000, 500), (9_000, 3_000, 3_000), (10_000, 1_000, 4_000)]
)
def test_the_cost_of_evaluations_is_that_of_each_result_that_has_one(steps: int, result: int, every: int) -> None:
    plan = made(steps=steps, steps_per_result=result, trial={"evaluation_interval": every}, evaluation_episodes=3)
    steps, result = plan.trained_steps
    due = [at for at in range(result, steps + 1, result) if at == steps or at // every > (at - result) // every]
    assert f", {len(due) * 3 * plan.task.episode_steps:,} environment steps in all" in plan.about_steps()
