"""Running sweeps: what is planned, refused and gone on with."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from chat_server import chat_server, yes
from typer.testing import CliRunner

from vlm_rm_sweeps.cli import app, main
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.rewards.openai_endpoint import API_KEY, BASE_URL, PER_MINUTE
from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.screening import load_plan
from vlm_rm_sweeps.sweeping.config.sweep import load_sweep
from vlm_rm_sweeps.sweeping.execution.run_sweep import resumed_plan
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import Journal, TrialEnded
from vlm_rm_sweeps.training.checkpoints import Checkpoint

Command = Callable[..., str]
SCREENING = Path(__file__).parents[2] / "sweeps" / "screen_cartpole.yaml"
QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


def test_dry_run_prints_the_trials_and_their_resources_and_starts_nothing(vlm_rm: Command, tmp_path: Path) -> None:
    shown = vlm_rm("sweep", QUICKSTART, "--dry-run", "--results", tmp_path / "results")
    trials = planned(QUICKSTART).trials
    assert f"{len(trials)} trials of" in shown
    assert all(trial.label in shown for trial in trials)
    assert "each trial reserves 1 CPUs and 0 GPUs" in shown
    assert f"{find_reward_model('embedded/small').parameters / 1e6:.2f} M parameters" in shown
    assert not (tmp_path / "results").exists()


def test_set_changes_keys_of_the_file(vlm_rm: Command, refusal: Command) -> None:
    shown = vlm_rm(
        "sweep", QUICKSTART, "--dry-run", "--set", "steps=77", "--set", "models=[embedded/tiny]", "--set", "pool.servers=3"
    )
    assert "6 trials of 77 environment steps" in shown
    assert "3 reward server(s) of embedded/tiny" in shown
    assert "embedded/small" not in shown
    assert "--set 'steps': expected key.path=value" in refusal("sweep", QUICKSTART, "--dry-run", "--set", "steps")
    assert f"{QUICKSTART}: unknown key 'stepz'" in refusal("sweep", QUICKSTART, "--dry-run", "--set", "stepz=1")


@pytest.mark.parametrize(
    ("file", "changes", "key"),
    [
        (QUICKSTART, ["epic_states={states: STATES}"], "epic_states"),
        (QUICKSTART, ["alphas=[]", "rewards=[{kind: threshold, quantile: 0.9, states: STATES}]"], "rewards, threshold"),
        (SCREENING, ["screen.states=STATES"], "screen"),
    ],
)
def test_a_dry_run_reads_the_states_that_the_file_names(
    vlm_rm: Command, refusal: Command, tmp_path: Path, file: Path, changes: list[str], key: str
) -> None:
    vlm_rm("states", "sample", "mountaincar-summit", "--count", "3", "--output", tmp_path / "cars")
    for folder, message in (
        (tmp_path / "gone", "is not a data set of states"),
        (tmp_path / "cars", "has states of mountaincar-summit, but"),
    ):
        given = [part for change in changes for part in ("--set", change.replace("STATES", str(folder)))]
        refused = refusal("sweep", file, "--dry-run", *given)
        assert message in refused
        assert str(folder) in refused
    assert key in refused  # by which one to name another


def test_the_sweep_file_in_the_results_is_resolved(tmp_path: Path) -> None:
    file = tmp_path / "overlay.yaml"
    file.write_text(f"base: {QUICKSTART}\nname: overlay\n")
    sweep = load_sweep(file, ["steps=77"])
    folder = SweepFolder(tmp_path / "overlay-1")
    folder.create(sweep)
    stored = yaml.safe_load(folder.sweep_file.read_text())
    assert (stored["name"], stored["steps"], "base" in stored) == ("overlay", 77, False)
    assert load_sweep(folder.sweep_file) == sweep


def test_bad_input_is_one_message_and_exit_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(QUICKSTART.read_text().replace("seeds:", "seed:"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["vlm-rm", "sweep", str(file)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith(f"vlm-rm: {file}: unknown key 'seed' (value [0]): did you mean 'seeds'?")
    assert list(tmp_path.iterdir()) == [file]


def planned(file: Path) -> Plan:
    plan = load_plan(file)
    assert isinstance(plan, Plan)
    return plan


def interrupted_sweep(results: Path, file: Path) -> None:
    """What a killed driver leaves of a sweep of which one trial was finished."""
    plan = planned(file)
    folder = SweepFolder(results / f"{plan.sweep.name}-20260101-120000")
    folder.create(plan.sweep)
    Journal(folder.journal).append(TrialEnded(time=0, trial=plan.trials[0].trial_id, status=RunStatus.FINISHED, tags={}))


def test_an_interrupted_sweep_is_neither_continued_nor_left_unasked(refusal: Command, tmp_path: Path) -> None:
    interrupted_sweep(tmp_path, QUICKSTART)
    message = refusal("sweep", QUICKSTART, "--results", tmp_path)
    finished = f"1 of {len(planned(QUICKSTART).trials)} trials finished"
    assert f"was interrupted, with {finished}: --resume (or --yes) continues it, --new starts another" in message


def test_a_changed_sweep_file_is_not_resumed_and_the_change_is_shown(refusal: Command, tmp_path: Path) -> None:
    interrupted_sweep(tmp_path, QUICKSTART)
    changed = tmp_path / "changed.yaml"
    changed.write_text(QUICKSTART.read_text().replace("steps: 8000", "steps: 9000"))
    assert "-steps: 8000\n+steps: 9000" in refusal("sweep", changed, "--results", tmp_path, "--resume")


@pytest.mark.parametrize("option", [[], ["--yes"]], ids=["plain", "yes"])
def test_nor_does_a_changed_sweep_file_start_anew_without_a_word(refusal: Command, tmp_path: Path, option: list[str]) -> None:
    interrupted_sweep(tmp_path, QUICKSTART)
    changed = tmp_path / "changed.yaml"
    changed.write_text(QUICKSTART.read_text().replace("steps: 8000", "steps: 9000"))
    message = refusal("sweep", changed, "--results", tmp_path, *option)
    assert "start a new sweep with --new" in message
    assert "-steps: 8000\n+steps: 9000" in message


def test_a_sweep_whose_trials_have_ended_and_that_has_not_is_not_started_anew(refusal: Command, tmp_path: Path) -> None:
    """Its driver was killed while it wrote the table."""
    interrupted_sweep(tmp_path, QUICKSTART)
    plan = planned(QUICKSTART)
    found = SweepFolder.newest(plan.sweep, tmp_path)
    assert found is not None
    for trial in plan.trials:
        Journal(found.journal).append(TrialEnded(time=0, trial=trial.trial_id, status=RunStatus.FINISHED, tags={}))
    count = len(plan.trials)
    assert f"was interrupted, with {count} of {count} trials finished" in refusal("sweep", QUICKSTART, "--results", tmp_path)


@pytest.mark.parametrize("other", ["--resume", "--yes"])
def test_new_and_resume_exclude_each_other(refusal: Command, tmp_path: Path, other: str) -> None:
    assert "give only one of them" in refusal("sweep", QUICKSTART, "--results", tmp_path, "--new", other)


def test_a_screening_is_not_resumed(refusal: Command, tmp_path: Path) -> None:
    message = refusal("sweep", SCREENING, "--results", tmp_path, "--resume")
    assert "is a screening, which cannot be resumed" in message


def test_a_sweep_that_another_process_runs_is_left_alone(refusal: Command, tmp_path: Path) -> None:
    interrupted_sweep(tmp_path, QUICKSTART)
    found = SweepFolder.newest(planned(QUICKSTART).sweep, tmp_path)
    assert found is not None
    with found.locked():
        assert "in use by another process" in refusal("sweep", QUICKSTART, "--results", tmp_path, "--resume")


def test_evaluate_says_what_is_not_a_checkpoint(refusal: Command, tmp_path: Path) -> None:
    assert "is not a checkpoint" in refusal("evaluate", tmp_path)
    assert "is not a checkpoint" in refusal("evaluate", tmp_path / "missing")


def test_evaluate_refuses_a_place_or_a_device_before_the_work(
    refusal: Command, saved_policy: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    checkpoint = saved_policy(tmp_path / "trial").folder
    (tmp_path / "file").write_text("mine")
    assert "file is not a folder" in refusal("evaluate", checkpoint, "--out", tmp_path / "file" / "evaluation")
    missing = f"cuda:{torch.cuda.device_count()}"
    assert f"device '{missing}' cannot be used here: expected one of cpu" in refusal(
        "evaluate", checkpoint, "--device", missing
    )
    assert not (tmp_path / "trial" / "evaluations").exists()


def test_a_misspelt_option_is_exit_status_2() -> None:
    assert CliRunner().invoke(app, ["sweep", str(QUICKSTART), "--dryrun"]).exit_code == 2


def test_a_machine_that_would_draw_otherwise_resumes_a_sweep_as_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.sweeping.config.plan.machine_profile", lambda: "full")
    folder, begun = SweepFolder(tmp_path / "a"), planned(QUICKSTART)
    folder.create(begun.sweep)
    monkeypatch.setattr("vlm_rm_sweeps.sweeping.config.plan.machine_profile", lambda: "fast")
    resumed = resumed_plan(planned(QUICKSTART), folder)
    assert resumed.trials == begun.trials
    assert resumed.sweep.profile == "full"
    assert {each.profile for each in resumed.renderings} == {"full"}
    named = load_plan(QUICKSTART, ["profile=fast"])
    assert isinstance(named, Plan)
    with pytest.raises(UserError, match=r"-profile: full\n\+profile: fast"):
        resumed_plan(named, folder)


def test_an_endpoint_judges_the_episodes_of_a_policy(
    vlm_rm: Command,
    refusal: Command,
    saved_policy: Callable[..., Checkpoint],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What was answered is asked once, a refusal is one message before there is a result, and the key is in no file."""
    key, trial = "sk-never-to-be-seen-5647382910", tmp_path / "trial"
    saved_policy(trial)
    monkeypatch.setenv("VLM_RM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(API_KEY, key)
    monkeypatch.setenv(PER_MINUTE, "1000000")
    judging = ("evaluate", trial, "--episodes", 1, "--judge", "openai/small-vlm")
    with chat_server(lambda body, number: yes(0.25)) as server:
        monkeypatch.setenv(BASE_URL, server.url)
        printed = vlm_rm(*judging, "--out", tmp_path / "judged")
        asked = len(server.asked)
        assert {body["model"] for body in server.asked} == {"small-vlm"}
        assert 0 < asked <= 200
        assert vlm_rm(*judging, "--out", tmp_path / "again").splitlines()[1:-1] == printed.splitlines()[1:-1]
        assert len(server.asked) == asked
    # Of an episode of 200 steps.
    assert "return by openai/small-vlm 50.00" in printed
    assert pd.read_csv(tmp_path / "judged" / "evaluation.csv")["return by openai/small-vlm"].tolist() == pytest.approx([50])
    with chat_server(lambda body, number: (401, f"no longer valid: {key}")) as server:
        monkeypatch.setenv(BASE_URL, server.url)
        refused = refusal(*judging, "--out", tmp_path / "refused")
    assert "no longer valid: ***" in refused
    assert not (tmp_path / "refused").exists()
    assert key not in printed + refused
    assert [file for file in tmp_path.rglob("*") if file.is_file() and key.encode() in file.read_bytes()] == []
