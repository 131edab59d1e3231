"""What users' own parts do wrong: one message with the part, the value and what was expected, before anything is trained."""

from pathlib import Path

import pytest
from command_line import vlm_rm

from vlm_rm_sweeps.errors import UserError

SWEEP = """
name: odd
task: cartpole-upright
models: [embedded/tiny]
alphas: [0]
steps: 100
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    return file


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own-parts") / "states"
    vlm_rm("states", "sample", "cartpole-upright", "--count", "40", "--output", str(folder))
    return folder


def refusal(*arguments: str | Path) -> str:
    with pytest.raises(UserError) as refused:
        vlm_rm(*map(str, arguments))
    message = str(refused.value)
    assert message.startswith("vlm-rm: ")
    assert message.count("\n") == 1, message
    return message


PLANNED = {
    "models=[odd_parts:{}]": [
        ("RaisesInCheck", ", in check_spec: TypeError: no spec today: this is a module that you named"),
        (
            "LoadsOtherwise",
            "its method load is called with self, device, precision, micro_batch, and takes self: expected the same",
        ),
        ("RemarksText", "odd_parts:RemarksText.remarks() returned 'a remark': expected a list of sentences"),
        ("ParametersInWords", "has '12 M' as its parameters, not a number of parameters"),
        ("JudgesInNumbers", "has array([0., 0., 0.]) as its judges_only, not true or false"),
    ],
    "rewards=[odd_parts:{}]": [
        ("RaisesInReward", "in reward: KeyError: 'goal': this is a module that you named"),
        ("EmbedsNumber", "texts.embed(3): expected a sentence"),
        ("Weighs", "Weighs: unhashable type: 'list': rewards are compared and stored by their parameters"),
        ("OneText", "prompts() is 'a pole': expected a tuple of texts"),
        ("OneEnd", "range() is 5: expected the least and the largest reward"),
        ("RaisesWhenMade", "rewards.0: odd_parts:RaisesWhenMade cannot be made: RuntimeError: the licence server is down"),
        ("RaisesInParts", "in parts: ValueError: no parts today"),
        ("NoParts", "parts() is (): expected at least one FrameReward"),
        ("CombinesColumns", "combine returned float32 of shape (2, 1) for 2 steps: expected one float for each"),
        ("HalfMemory", "memory is 2.5: expected a number of steps"),
    ],
    "task=odd_parts:{}": [
        ("no_env", "make_native_env returned None: expected a gymnasium.Env"),
        ("half_steps", "episode_steps is 20.5: expected a whole number from 1 to 100,000"),
        ("no_goal", "expected at least one, and none of them empty (this is the prompt of task 'odd_parts:no_goal'"),
        ("one_prompt", "goal_prompt and baseline_prompt are the same, 'a red rod'"),
        ("no_name", "name is b'odd': expected a name, such as 'cartpole-upright'"),
        ("no_control", "control is array([0., 0., 0.]): expected a Control"),
        ("no_states", "states is 'angle': expected a StateSpace with variables, or None"),
    ],
    "algorithm=odd_parts:{}": [
        ("NoUpdates", "update_size is 0: expected a number of transitions, at least 1"),
        ("OddAverage", "evaluates_an_average is array([0., 0., 0.]): expected True or False"),
        ("RaisesInRemarks", "in remarks: KeyError: 'steps'"),
    ],
}


@pytest.mark.parametrize(
    ("key", "name", "message"), [(key, name, message) for key, parts in PLANNED.items() for name, message in parts]
)
def test_a_part_is_refused_when_the_sweep_is_planned(sweep: Path, key: str, name: str, message: str) -> None:
    no_alphas = ["--set", "alphas=[]"] if key.startswith("rewards") else []
    assert message in refusal("sweep", sweep, "--dry-run", *no_alphas, "--set", key.format(name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises_in_set", "in set_values: ZeroDivisionError: set: this is a module that you named"),
        ("reads_text", "state space ReadsText: read() returned 'steep' for 'angle': expected a finite number"),
        ("reads_nan", "state space ReadsNan: read() returned nan for 'angle': expected a finite number"),
        ("unsure_of_goal", "state space UnsureOfGoal: in_goal() returned None: expected True or False"),
    ],
)
def test_a_state_space_leaves_no_data_set_behind(tmp_path: Path, name: str, message: str) -> None:
    output = tmp_path / "states"
    assert message in refusal("states", "sample", f"odd_parts:{name}", "--count", "3", "--output", output)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RaisesInScore", "in score: KeyError: 'red': this is a module that you named: mend it there"),
        ("ExitsInScore", "in score: SystemExit: no licence"),
        ("ScoresPerFrame", "returned float32 of shape (40,) for 40 frames and 1 specs: expected float32 (40, 1)"),
        ("ScoresTexts", "returned <U3 of shape (40, 1) for 40 frames and 1 specs: expected float32 (40, 1)"),
        ("ScoresNothing", "returned object of shape () for 40 frames and 1 specs"),
    ],
)
def test_a_reward_model_is_refused_when_it_has_scored(states: Path, name: str, message: str) -> None:
    assert message in refusal("epic", states, "--model", f"odd_parts:{name}")


def test_a_baseline_that_is_the_tasks_goal_is_one_message(states: Path) -> None:
    given = ("--model", "embedded/tiny", "--baseline", "pole vertically upright on top of the cart")
    assert "goal and baseline are the same" in refusal("epic", states, *given)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("epic_states=1000000000000", "expected 0, for none, or"),
        ("control.action_repeat=200", "an episode of cartpole-upright has 200 steps, so it would be a single action"),
        ("evaluation_episodes=1000000000", "input should be less than or equal to 100000"),
        ("scheduler={kind: asha, reduction: 1.0000001}", "input should be greater than or equal to 1.1"),
    ],
)
def test_a_number_for_which_there_is_no_time_or_no_use_is_refused(sweep: Path, changed: str, message: str) -> None:
    assert message in refusal("sweep", sweep, "--dry-run", "--set", changed)


def test_a_picture_that_another_process_has_written_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "picture.png exists now and is not overwritten" in refusal("render", "odd_parts:writes_beside", "-o", "picture.png")
    assert Path("picture.png").read_text() == "of another process"
    vlm_rm("render", "odd_parts:writes_beside", "-o", "picture.png", "--force")
    assert Path("picture.png").read_bytes().startswith(b"\x89PNG")


def test_parts_without_a_fault_are_planned(sweep: Path) -> None:
    vlm_rm("sweep", str(sweep), "--dry-run", "--set", "models=[odd_parts:Redness]", "--set", "task=odd_parts:task")
    given = ["--set", "alphas=[]", "--set", "rewards=[odd_parts:GoalCosine, odd_parts:Combining]"]
    vlm_rm("sweep", str(sweep), "--dry-run", "--set", "algorithm=odd_parts:Learner", *given)
