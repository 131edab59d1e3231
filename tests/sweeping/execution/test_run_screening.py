"""A whole small screening: a real model, a real data set, real MLflow on sqlite; and what is refused before it starts."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from own_rewards import Counting

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.states import StateDataset, write_states
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.sweeping.config.plan import Plan, plan_of
from vlm_rm_sweeps.sweeping.config.screening import Screening, load_plan
from vlm_rm_sweeps.sweeping.config.sections import Combination
from vlm_rm_sweeps.sweeping.config.sweep import load_sweep
from vlm_rm_sweeps.sweeping.execution import run_screening as screening_module
from vlm_rm_sweeps.sweeping.execution.run_screening import ScreeningOutcome, run_screening
from vlm_rm_sweeps.sweeping.tracking.folder import default_tracking_uri
from vlm_rm_sweeps.tasks.registry import find_task

CARTPOLE = find_task("cartpole-upright")
GOALS = ["pole vertically upright on top of the cart", "the pole hangs straight down below the cart"]
ALPHAS = [0.0, 0.5, 1.0]


def screening_file(folder: Path, dataset: StateDataset, **changes: Any) -> Path:
    (folder / "goals.txt").write_text("\n".join(GOALS))
    keys = {
        "name": "screen",
        "task": "cartpole-upright",
        "models": ["embedded/tiny"],
        "alphas": ALPHAS,
        "prompts": str(folder / "goals.txt"),
        "screen": {"states": str(dataset.folder), "truth": "-abs(theta)", "keep": 2},
        "steps": 500,
        "seeds": [3],
        "max_trials": 10,
        "profile": "fast",
    }
    file = folder / "screen.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in (keys | changes).items() if value is not None}))
    return file


def screening_of(file: Path) -> Screening:
    plan = load_plan(file)
    assert isinstance(plan, Screening)
    return plan


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StateDataset:
    return write_states(
        tmp_path_factory.mktemp("states") / "data",
        CARTPOLE,
        sampled_states(CARTPOLE, 60, seed=0, rendering=CARTPOLE.rendering(profile="fast")),
    )


@pytest.fixture(scope="module")
def ran(dataset: StateDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[ScreeningOutcome, int, MlflowClient]:
    """A screening, how many images it really encoded, and its MLflow."""
    folder = tmp_path_factory.mktemp("screening")
    counting = Counting("embedded/tiny", load_reward_model("embedded/tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screening_module, "load_for_measuring", lambda *_: counting)
        uri = default_tracking_uri(folder)
        outcome = run_screening(screening_of(screening_file(folder, dataset)), folder, uri, lambda line: None)
    return outcome, counting.frames, MlflowClient(uri)


def test_every_combination_is_ranked_with_one_encoding_of_each_image(ran: tuple[ScreeningOutcome, int, MlflowClient]) -> None:
    outcome, encoded, _ = ran
    assert encoded == outcome.images_encoded == 60
    assert len(outcome.ranking) == 6
    assert outcome.ranking["epic_distance"].is_monotonic_increasing
    assert outcome.ranking["prompt"].tolist()[:3] == ["pole-vertically-upright-on-top-of-the-ca"] * 3
    pd.testing.assert_frame_equal(pd.read_csv(outcome.folder / "combinations.csv"), outcome.ranking, check_exact=False)


def test_the_version_of_the_family_that_the_file_names_is_measured(dataset: StateDataset, tmp_path: Path) -> None:
    loaded: list[str] = []

    def load(model_id: str, *_: Any) -> RewardModel:
        loaded.append(model_id)
        return load_reward_model(model_id)

    screening = screening_of(screening_file(tmp_path, dataset, embedded_version="v1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screening_module, "load_for_measuring", load)
        outcome = run_screening(screening, tmp_path, default_tracking_uri(tmp_path), lambda line: None)
    assert loaded == ["embedded/v1/tiny"]
    assert set(outcome.ranking["model"]) == {"embedded/tiny"}


def test_the_best_are_a_sweep_file_for_training(ran: tuple[ScreeningOutcome, int, MlflowClient]) -> None:
    outcome = ran[0]
    plan = load_plan(outcome.best_file)
    assert isinstance(plan, Plan)
    best = [(row["model"], row["alpha"], row["prompt"]) for row in outcome.ranking.head(2).to_dict("records")]
    trials = [(trial.model_id, trial.alpha, trial.prompt_id) for trial in plan.trials if trial.prompt]
    assert sorted(trials) == sorted(best)
    assert plan.prompts[0].goal == (GOALS[0],)
    sweep = plan.sweep
    assert (sweep.name, sweep.steps, sweep.seeds, sweep.max_trials) == ("screen-best", 500, (3,), 10)


def test_mlflow_has_a_parent_and_one_child_for_each_combination(ran: tuple[ScreeningOutcome, int, MlflowClient]) -> None:
    outcome, _, client = ran
    runs = json.loads((outcome.folder / "mlflow.json").read_text())
    children = client.search_runs(
        [runs["experiment_id"]], filter_string=f"tags.mlflow.parentRunId = '{runs['run_id']}'", max_results=100
    )
    assert {child.info.status for child in children} == {"FINISHED"}
    rows = {(row["model"], row["alpha"], row["prompt"]): row for row in outcome.ranking.to_dict("records")}
    assert len(children) == len(rows)
    for child in children:
        tags, metrics = child.data.tags, child.data.metrics
        row = rows[(tags["model"], float(tags["alpha"]), tags["prompt"])]
        assert tags["task"] == "cartpole-upright"
        assert child.data.params["goal"] in GOALS
        for name in ("epic_distance", "epic_low", "epic_high", "spearman", "pearson", "parameters_millions"):
            assert metrics[name] == pytest.approx(row[name])
        assert "roc_auc" not in metrics  # the truth is a number
    parent = client.get_run(runs["run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["images_encoded"] == 60
    files = {item.path for item in client.list_artifacts(runs["run_id"])}
    assert {"screening.yaml", "combinations.csv", "best.yaml"} <= files


def test_a_file_without_screen_is_a_sweep(dataset: StateDataset, tmp_path: Path) -> None:
    assert isinstance(load_plan(screening_file(tmp_path, dataset, screen=None, prompts=None)), Plan)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"screen": {"truth": "success"}}, "'screen.states' is missing"),
        ({"screen": {"states": "x", "trth": "success"}}, "unknown key 'screen.trth'.*did you mean 'truth'"),
        ({"screen": {"states": "x", "keep": 0}}, "screen.keep = 0"),
        ({"screen": None, "steps": None}, "prompts"),
        ({"modles": ["embedded/tiny"]}, "unknown key 'modles'.*did you mean 'models'"),
        ({"prompts": "nowhere.txt"}, r"prompts: nowhere\.txt: cannot be read"),
        ({"steps": None}, "'steps' is missing"),
        ({"max_trials": 2}, r"the grid has 3 trials, more than max_trials = 2.*training of the best 2 combinations"),
        ({"task": "cartpole-sideways"}, "unknown task 'cartpole-sideways'"),
    ],
)
def test_bad_files_are_explained(dataset: StateDataset, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = screening_file(tmp_path, dataset, **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_plan(file)
    assert str(file) in str(caught.value)


def test_the_best_are_audited_for_prompts_that_are_not_among_them(dataset: StateDataset, tmp_path: Path) -> None:
    screening = screening_of(
        screening_file(tmp_path, dataset, audit={"prompts": ["the-pole-hangs-straight-down-below-the-c"], "every": 100})
    )
    ids = [prompt.id for prompt in screening.plan.prompts]
    keys = screening.best_sweep([Combination(model="embedded/tiny", alpha=0.5, prompt=ids[0])])
    plan = plan_of(keys)
    assert [prompt.id for prompt in plan.prompts] == ids
    assert [trial.prompt_id for trial in plan.trials if trial.prompt] == [ids[0]]


def test_what_is_measured_is_on_disk_though_mlflow_went_away(
    dataset: StateDataset, tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_batch = MlflowClient.log_batch

    def goes_away(self: MlflowClient, run_id: str, metrics: Any = (), **rest: Any) -> None:
        if metrics:
            raise MlflowException("connection refused")
        log_batch(self, run_id, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", goes_away)
    uri = f"sqlite:///{mlflow_database}"
    screening = screening_of(screening_file(tmp_path, dataset, alphas=[0.5]))
    with pytest.raises(UserError, match=r"did not take all runs .*connection refused.*the best are") as caught:
        run_screening(screening, tmp_path, uri, lambda line: None)
    (ranking,) = tmp_path.glob("screen-*/combinations.csv")
    assert str(ranking) in str(caught.value)
    assert len(pd.read_csv(ranking)) == 2
    assert len(load_sweep(ranking.with_name("best.yaml")).only) == 2

    monkeypatch.setattr(MlflowClient, "create_run", lambda *_, **__: goes_away(MlflowClient(uri), "", metrics=[1]))
    with pytest.raises(UserError, match=r"takes no runs \(.*connection refused\); nothing was measured"):
        run_screening(screening, tmp_path / "other", uri, lambda line: None)


def test_models_before_one_that_fails_are_on_disk(dataset: StateDataset, tmp_path: Path, mlflow_database: Path) -> None:
    """They are reward models of one's own."""
    said: list[str] = []
    models = ["own_rewards:Brightness", "own_rewards:WithoutWeights"]
    screening = screening_of(screening_file(tmp_path, dataset, name="broken", models=models, alphas=[0.5]))
    with pytest.raises(UserError, match="the weights of own_rewards:WithoutWeights are damaged"):
        run_screening(screening, tmp_path, f"sqlite:///{mlflow_database}", said.append)
    (ranking,) = tmp_path.glob("broken-*/combinations.csv")
    assert pd.read_csv(ranking)["model"].tolist() == ["own_rewards:Brightness"] * 2
    assert f"what was measured before is in {ranking}" in said
    assert not ranking.with_name("best.yaml").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "mountaincar-summit"}, "has states of cartpole-upright, but .* is about mountaincar-summit"),
        (
            {"profile": "full"},
            "original textures, default camera, fast profile, but trials are drawn with .*full profile",
        ),
        ({"screen": {"states": "nowhere"}}, "nowhere is not a data set of states"),
        ({"truth": "rater:anna"}, "has no labels by raters"),
    ],
)
def test_data_that_cannot_be_used_leaves_no_folder(
    dataset: StateDataset, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "truth" in changes:
        changes = {"screen": {"states": str(dataset.folder)} | changes}
    screening = screening_of(screening_file(tmp_path, dataset, **changes))
    with pytest.raises(UserError, match=message):
        run_screening(screening, tmp_path / "results", "sqlite:///unused.db", lambda line: None)
    assert not (tmp_path / "results").exists()


def test_another_measure_ranks_if_it_is_asked_for(dataset: StateDataset, tmp_path: Path, mlflow_database: Path) -> None:
    settings = {"states": str(dataset.folder), "truth": "success", "keep": 1, "rank_by": "roc_auc"}
    screening = screening_of(screening_file(tmp_path, dataset, name="areas", alphas=[0.0, 1.0], screen=settings))
    outcome = run_screening(screening, tmp_path, f"sqlite:///{mlflow_database}", lambda line: None)
    assert outcome.ranking["roc_auc"].is_monotonic_decreasing
    assert outcome.ranking["roc_auc"].nunique() > 1
    best = load_sweep(outcome.best_file).only[0]
    first = outcome.ranking.iloc[0]
    assert (best.model, best.alpha, best.prompt) == (first["model"], first["alpha"], first["prompt"])


def test_rewards_are_ranked_and_the_best_are_trained_by_their_names(
    dataset: StateDataset, tmp_path: Path, mlflow_database: Path
) -> None:
    rewards = [{"kind": "history", "name": "recent"}, {"kind": "softmax", "negatives": ["a pole lying down"]}, "goal_baseline"]
    screening = screening_of(screening_file(tmp_path, dataset, name="kinds", alphas=None, rewards=rewards))
    assert "rewards: recent: a data set has no reward of the environment" in screening.describe()
    outcome = run_screening(screening, tmp_path, f"sqlite:///{mlflow_database}", lambda line: None)
    ranked = outcome.ranking[["model", "reward", "prompt"]].to_dict("records")
    assert {row["reward"] for row in ranked} == {"recent", screening.plan.rewards[1].label, "goal_baseline"}
    assert outcome.ranking["alpha"].notna().tolist() == [row["reward"] == "goal_baseline" for row in ranked]
    best = load_sweep(outcome.best_file)
    assert [{"model": each.model, "reward": each.reward, "prompt": each.prompt} for each in best.only] == ranked[:2]
    plan = load_plan(outcome.best_file)
    assert isinstance(plan, Plan)
    trained = {trial.reward.label for trial in plan.trials if trial.reward}
    assert trained == {row["reward"] for row in ranked[:2]}


def test_a_screening_of_alphas_alone_has_no_remark(dataset: StateDataset, tmp_path: Path) -> None:
    assert "\n" not in screening_of(screening_file(tmp_path, dataset)).describe()


@pytest.mark.parametrize(
    ("rank_by", "reason"),
    [
        ("roc_auc", "the truth is not yes or no"),
        ("value_order_correlation", "the states are of no episodes"),
        ("kendall_tau", "the states are of no episodes"),
    ],
)
def test_a_measure_without_a_value_is_refused_before_anything_is_measured(
    dataset: StateDataset, tmp_path: Path, rank_by: str, reason: str
) -> None:
    settings = {"states": str(dataset.folder), "truth": "-abs(theta)", "rank_by": rank_by}
    screening = screening_of(screening_file(tmp_path, dataset, screen=settings))
    with pytest.raises(
        UserError, match=rf"screen.rank_by = '{rank_by}' has no value here, because {reason}: choose another of"
    ):
        run_screening(screening, tmp_path / "results", "sqlite:///unused.db", lambda line: None)
    assert not (tmp_path / "results").exists()
