"""Figures drawn from runs in a real MLflow: all pages are read, each figure is saved, and one that does not apply says why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient
from mlflow_sweeps import MODELS, sweep_of

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.palette import model_colours
from vlm_rm_sweeps.training.checkpoints import Checkpoint


@pytest.fixture(scope="module")
def store(mlflow_database: Path) -> str:
    return f"sqlite:///{mlflow_database}"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "analysis"))
    monkeypatch.setenv("MPLBACKEND", "agg")


def scaling_trials() -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "alpha": alpha,
            "prompt": "task",
            "seed": seed,
            "metrics": {
                "parameters_millions": parameters,
                "epic_distance": 0.5 - parameters / 2,
                "epic_low": 0.45 - parameters / 2,
                "epic_high": 0.55 - parameters / 2,
                "evaluation_success": 0.2 * seed + 0.4,
                "clip_return": [1.0, 2.0],
                "audit_proxy_reward": [0.1, 0.2],
                "audit_goal_fraction": [0.2, 0.1],
                "audit_true_reward": [1.0, 0.9],
                "audit_gold/embedded_small": [0.3, 0.2],
                "overoptimisation_alarm": [0.0, 1.0],
            },
        }
        for model, parameters in MODELS.items()
        for alpha in (0.0, 0.5)
        for seed in (0, 1)
    ]


def test_each_figure_is_written_from_all_pages(
    scripts: None, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import alpha
    import learning_curves
    import model_scaling
    import overoptimisation
    import runs

    monkeypatch.setattr(runs, "_PAGE", 3)
    sweep = runs.SweepRuns(sweep_of(tmp_path / "scaling", store, scaling_trials()))
    assert len(sweep.children) == 8
    for figure in (alpha, learning_curves, model_scaling, overoptimisation):
        figure.draw(sweep)
        for suffix in ("png", "svg", "csv"):
            file = f"{figure.__name__}.{suffix}"
            assert (sweep.folder / "figures" / file).stat().st_size > 100
            assert list((sweep.folder / "artifacts").rglob(file)), file
    scaling = pd.read_csv(sweep.folder / "figures" / "model_scaling.csv").set_index(["measure", "model", "alpha"])
    epic = scaling.xs(("EPIC distance (smaller is better)", "embedded/small", 0.5))
    assert (epic["value"], epic["low"], epic["high"]) == pytest.approx((0.24, 0.19, 0.29))
    success = scaling.xs(("success after training", "embedded/tiny", 0.0))
    assert (success["value"], success["seeds"]) == (pytest.approx(0.5), 2)
    assert (success["low"], success["high"]) == pytest.approx((0.4, 0.6))
    summary = pd.read_csv(sweep.folder / "figures" / "overoptimisation_by_model.csv")
    curves = pd.read_csv(sweep.folder / "figures" / "overoptimisation.csv")["curve"].unique().tolist()
    assert curves == ["proxy: training reward", "truth: steps in the goal", "true reward", "gold: embedded_small"]
    assert summary["model"].tolist() == ["embedded/tiny", "embedded/small"]
    assert summary["trials_with_alarm"].tolist() == [4, 4]
    assert summary["first_alarm_step"].tolist() == [2000, 2000]
    assert summary["truth_change"].tolist() == pytest.approx([-0.1, -0.1])


def test_models_are_compared_over_combinations_and_seeds(
    scripts: None, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import improvement
    import performance_profiles
    import runs

    # Of two seeds of each of two alphas, the small model is better by a tie and three wins.
    rates = {"embedded/tiny": (0.2, 0.4, 0.2, 0.4), "embedded/small": (0.4, 0.6, 0.7, 0.8)}
    values = iter([rate for model in MODELS for rate in rates[model]])
    trials = [trial | {"metrics": trial["metrics"] | {"evaluation_success": next(values)}} for trial in scaling_trials()]
    sweep = runs.SweepRuns(sweep_of(tmp_path / "compared_models", store, trials))
    performance_profiles.draw(sweep)
    profile = pd.read_csv(sweep.folder / "figures" / "performance_profiles.csv").set_index(["model", "threshold"])
    assert profile.loc[("embedded/tiny", 0.3), "value"] == 0.5
    assert profile.loc[("embedded/small", 0.3), "value"] == 1.0
    improvement.draw(sweep)
    compared = pd.read_csv(sweep.folder / "figures" / "improvement.csv").iloc[0]
    assert (compared["model"], compared["than"], compared["combinations"]) == ("embedded/small", "embedded/tiny", 2)
    assert compared["value"] == pytest.approx((3.5 / 4 + 1) / 2)
    assert compared["low"] <= compared["value"] <= compared["high"] == 1.0


def test_a_search_shows_what_its_samples_reached_by_each_value(scripts: None, store: str, tmp_path: Path) -> None:
    import alpha
    import runs
    import search

    drawn = {1: (0.2, 64), 2: (0.7, 128)}
    trials = [
        {"model": "embedded/tiny", "alpha": value, "prompt": "task", "sample": sample, "seed": seed}
        | {"metrics": {"evaluation_success": value + 0.1 * seed}, "params": {"alpha": value, "settings_batch": batch}}
        for sample, (value, batch) in drawn.items()
        for seed in (0, 1)
    ]
    folder = sweep_of(tmp_path / "searched", store, trials)
    space = {"alpha": {"low": 0, "high": 1}, "settings.batch": [64, 128]}
    keys = {"name": "drawn", "task": "cartpole-upright", "models": ["embedded/tiny"], "steps": 10, "search": {"space": space}}
    (folder / "sweep.yaml").write_text(json.dumps(keys))
    sweep = runs.SweepRuns(folder)
    assert sweep.seeds_note() == "2 seeds"
    search.draw(sweep)
    table = pd.read_csv(folder / "figures" / "search.csv")
    assert table[["sample", "alpha", "settings.batch"]].drop_duplicates().to_numpy().tolist() == [[1, 0.2, 64], [2, 0.7, 128]]
    assert table["evaluation_success"].tolist() == pytest.approx([0.2, 0.3, 0.7, 0.8])
    with pytest.raises(runs.DoesNotApplyError):
        alpha.draw(sweep)
    changing = keys | {
        "scheduler": "pbt",
        "search": {"space": {"settings.batch": [32, 64]}},
        "trial": {"evaluation_interval": 1},
    }
    (folder / "sweep.yaml").write_text(json.dumps(changing | {"alphas": [0.5], "steps_per_result": 1}))
    with pytest.raises(runs.DoesNotApplyError, match="`pbt` changed the values"):
        search.draw(sweep)
    with pytest.raises(runs.DoesNotApplyError, match="no `search`"):
        search.draw(runs.SweepRuns(sweep_of(tmp_path / "grid", store, scaling_trials())))


def test_measures_before_training_are_compared_with_what_policies_reach(
    scripts: None, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import predictive

    reached = {
        ("embedded/tiny", 0.0): 0.1,
        ("embedded/tiny", 0.5): 0.4,
        ("embedded/small", 0.0): 0.6,
        ("embedded/small", 0.5): 0.9,
    }
    trials = [
        trial | {"metrics": {"evaluation_success": reached[trial["model"], trial["alpha"]], "evaluation_true_return": 7.0}}
        for trial in scaling_trials()
    ]
    folder = sweep_of(tmp_path / "predicted", store, trials)
    keys = {"name": "drawn", "task": "cartpole-upright", "models": list(MODELS), "alphas": [0.0, 0.5], "steps": 10}
    (folder / "sweep.yaml").write_text(json.dumps(keys))
    before = [
        {"model": model, "alpha": alpha, "prompt": "task", "textures": "original", "camera": "default", "truth": "closeness"}
        | {"epic_distance": 1 - success, "epic_low": 0.0, "epic_high": 1.0}
        for (model, alpha), success in reached.items()
    ]
    pd.DataFrame(before).to_csv(folder / "epic.csv", index=False)
    monkeypatch.setattr("sys.argv", ["predictive.py", str(folder), "--count", "150"])
    predictive.main()
    table = pd.read_csv(folder / "figures" / "predictive.csv")
    assert set(table["outcome"]) == {"success"}, "the true return is the same for all"
    (told,) = table[table["states"] == "before training"].to_dict("records")
    assert (told["measure"], told["value"], told["cells"], told["seeds"]) == ("epic_distance", pytest.approx(1.0), 4, 2)
    measures = table[table["states"] == "random, success"].set_index("measure")["value"]
    assert {"epic_distance", "starc_distance", "pearson", "spearman", "roc_auc"} <= set(measures.index)
    assert measures.between(-1.001, 1.001).all()
    assert {"predictive.png", "predictive.svg", "predictive_cells.csv"} <= {
        file.name for file in (folder / "figures").iterdir()
    }
    assert "before training" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["predictive.py", str(folder), str(folder)])
    with pytest.raises(SystemExit):
        predictive.main()
    assert "expected one folder for each task" in capsys.readouterr().err


def test_a_figure_says_itself_over_how_many_seeds_it_is(
    scripts: None, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import alpha
    import improvement
    import runs

    for count, note in ((2, "2 seeds"), (1, "1 seed")):
        trials = [trial for trial in scaling_trials() if trial["seed"] < count]
        sweep = runs.SweepRuns(sweep_of(tmp_path / f"seeds_{count}", store, trials))
        for figure in (alpha, improvement):
            figure.draw(sweep)
            picture = (sweep.folder / "figures" / f"{figure.__name__}.svg").read_text()
            assert f"<!-- {note} -->" in picture
    unequal = runs.SweepRuns(sweep_of(tmp_path / "seeds_unequal", store, scaling_trials()[:-1]))
    assert unequal.seeds_note() == "1 to 2 seeds"
    alone = pd.read_csv(sweep.folder / "figures" / "improvement.csv")
    assert alone[["low", "high"]].isna().all(axis=None), "one seed has no interval"


def test_renderings_are_compared_and_not_merged(
    scripts: None, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import alpha
    import learning_curves
    import model_scaling
    import overoptimisation
    import runs

    trials = [
        trial | {"textures": textures, "camera": "paper", "metrics": trial["metrics"] | changed}
        for trial in scaling_trials()[:6]
        for textures, changed in {
            "modified": {"epic_distance": 0.1, "evaluation_success": 1.0},
            "original": {"epic_distance": 0.4, "evaluation_success": 0.0},
        }.items()
    ]
    sweep = runs.SweepRuns(sweep_of(tmp_path / "renderings", store, trials))
    drawn: dict[str, list[str]] = {}
    for figure in (alpha, learning_curves, model_scaling, overoptimisation):

        def keep(drawing: Figure, data: pd.DataFrame, name: str) -> None:
            texts = [axis.get_title() for axis in drawing.axes]
            drawn[name] = texts + [text for axis in drawing.axes for text in axis.get_legend_handles_labels()[1]]
            plt.close(drawing)
            if name in ("alpha", "model_scaling"):
                means = data[data["measure"].str.startswith("EPIC")].groupby("textures")["value"].unique().map(list)
                assert means.to_dict() == {"modified": [0.1], "original": [0.4]}
                of_success = data[data["measure"].str.startswith("success")]
                assert set(of_success["value"]) == {0.0, 1.0}
                assert set(of_success["seeds"]) == {2}

        monkeypatch.setattr(sweep, "save", keep)
        monkeypatch.setattr(sweep, "save_table", lambda *_: None)
        figure.draw(sweep)
    for name in ("alpha", "learning_curves", "model_scaling", "overoptimisation"):
        for textures in ("modified", "original"):
            assert any(f"{textures} textures" in text for text in drawn[name]), (name, drawn[name])
    assert not [text for texts in drawn.values() for text in texts if "camera" in text], "all trials have the same"
    # The mean over the seeds of each of 3 reward models, with each of 2 textures; the seeds themselves have no name.
    named = [text for text in drawn["learning_curves"] if "embedded" in text]
    assert len(set(named)) == 6, named


def test_a_model_has_the_same_colour_in_every_figure(
    scripts: None, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first model of the sweep file has no finished trial, and so is not drawn."""
    import alpha
    import learning_curves
    import overoptimisation
    import runs
    from matplotlib.colors import to_hex

    trials = [trial for trial in scaling_trials() if trial["model"] == "embedded/small"]
    sweep = runs.SweepRuns(sweep_of(tmp_path / "coloured", store, trials))
    expected = model_colours(MODELS)["embedded/small"]
    assert sweep.colours == model_colours(MODELS)
    found: dict[str, set[str]] = {}

    def keep(drawing: Figure, data: pd.DataFrame, name: str) -> None:
        lines = [line for axis in drawing.axes for line in axis.get_lines() if str(line.get_label())[:1] != "_"]
        drawn = [line for line in lines if not str(line.get_label()).startswith(("truth", "true", "spec"))]
        found[name] = {to_hex(line.get_color()) for line in drawn}
        plt.close(drawing)

    monkeypatch.setattr(sweep, "save", keep)
    monkeypatch.setattr(sweep, "save_table", lambda *_: None)
    for figure in (alpha, learning_curves, overoptimisation):
        figure.draw(sweep)
    assert found["learning_curves"] == {expected}
    assert found["overoptimisation"] == {expected}  # as proxy and as gold model


def test_lines_of_one_model_can_be_told_apart(scripts: None) -> None:
    import runs

    looks = [runs.line_look(place) for place in range(42)]
    assert len({(str(look["linestyle"]), look["marker"]) for look in looks}) == 42


def test_figures_of_models_prompts_and_policies(
    scripts: None, store: str, tmp_path: Path, saved_policy: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    import episode
    import prompts
    import reward_landscape
    import runs

    def written(sweep: Any, name: str) -> pd.DataFrame:
        assert all((sweep.folder / "figures" / f"{name}.{suffix}").stat().st_size > 1000 for suffix in ("png", "svg"))
        return pd.read_csv(sweep.folder / "figures" / f"{name}.csv")

    trial = {"model": "embedded/tiny", "prompt": "task", "seed": 0, "trial_id": "a"}
    trials = [trial | {"alpha": alpha, "metrics": {"evaluation_success": 1.0}} for alpha in (0.0, 0.5)]
    sweep = runs.SweepRuns(sweep_of(tmp_path / "drawn", store, trials))
    keys = {"name": "drawn", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.0, 0.5], "steps": 10}
    (sweep.folder / "sweep.yaml").write_text(json.dumps(keys))
    saved_policy(sweep.folder / "trials" / "a")
    monkeypatch.setattr(reward_landscape, "_POINTS", 9)
    reward_landscape.draw(sweep)
    landscape = written(sweep, "reward_landscape")
    assert landscape.groupby("alpha")["theta"].count().to_dict() == {0.0: 9, 0.5: 9}
    episode.draw(sweep)
    steps = written(sweep, "episode")
    assert steps.groupby("policy")["step"].count().to_dict() == {"after training": 200, "random actions": 200}
    assert "<!-- 1 seed (0) -->" in (sweep.folder / "figures" / "episode.svg").read_text()

    found = [
        {
            "model": "embedded/tiny",
            "alpha": alpha,
            "prompt": prompt,
            "goal": f"a {prompt} pole",
            "metrics": {"parameters_millions": 0.1, "spearman": 0.5, "epic_low": 0.1, "epic_high": 0.3} | distance,
        }
        for alpha in (0.0, 1.0)
        for prompt, distance in (("worse", {"epic_distance": 0.4}), ("better", {"epic_distance": 0.2}), ("constant", {}))
    ]
    screening = runs.SweepRuns(sweep_of(tmp_path / "compared", store, found))
    (screening.folder / "screening.yaml").touch()
    labels: list[str] = []
    save = screening.save

    def keep(drawing: Figure, data: pd.DataFrame, name: str) -> None:
        labels.extend(label.get_text() for label in drawing.axes[0].get_yticklabels())
        save(drawing, data, name)

    monkeypatch.setattr(screening, "save", keep)
    prompts.draw(screening)
    assert len(written(screening, "prompts")) == 6
    assert labels == ["a better pole", "a worse pole", "a constant pole"]


def test_figures_that_do_not_apply_say_why(
    scripts: None, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import alpha
    import figures
    import model_scaling
    import overoptimisation
    import prompts
    import runs

    trial = scaling_trials()[0]
    trial["metrics"] = {"evaluation_success": 0.5}
    sweep = runs.SweepRuns(sweep_of(tmp_path / "single", store, [trial]))
    monkeypatch.setattr(figures, "FIGURES", (model_scaling, alpha, overoptimisation, prompts))
    figures.draw(sweep)
    assert capsys.readouterr().out.splitlines() == [
        "model_scaling does not apply: it has only one model, embedded/tiny",
        "alpha does not apply: it has only one alpha, 0",
        "overoptimisation does not apply: its trials were not audited; add `audit:` to the sweep file",
        "prompts does not apply: it is not a screening, which is what `vlm-rm sweep` makes of a file with `screen:`",
    ]
    assert not (sweep.folder / "figures").exists()

    (sweep.folder / "screening.yaml").touch()
    monkeypatch.setattr(figures, "FIGURES", (model_scaling, alpha))
    figures.draw(sweep)
    reason = "does not apply: it is a screening, which trains nothing; the figure `prompts` shows its measurements"
    assert capsys.readouterr().out.splitlines() == [f"model_scaling {reason}", f"alpha {reason}"]


def test_a_folder_that_is_not_a_sweeps_is_refused(scripts: None, tmp_path: Path) -> None:
    import runs

    with pytest.raises(UserError, match=r"is not the folder of a sweep \(it has no mlflow.json\)"):
        runs.SweepRuns(tmp_path)
    (tmp_path / "mlflow.json").write_text("{")
    with pytest.raises(UserError, match=r"mlflow\.json is damaged"):
        runs.SweepRuns(tmp_path)


def test_unreachable_runs_are_reported_and_no_database_is_created(scripts: None, tmp_path: Path) -> None:
    import runs

    moved = tmp_path / "before" / "mlflow.db"
    for uri, message in (
        (f"sqlite:///{moved}", "does not exist: restore it, or name another with --tracking-uri"),
        ("http://127.0.0.1:9", "MLflow at http://127.0.0.1:9 does not answer"),
    ):
        (tmp_path / "mlflow.json").write_text(json.dumps({"tracking_uri": uri, "run_id": "a", "experiment_id": "1"}))
        with pytest.raises(UserError, match=message):
            runs.SweepRuns(tmp_path, uri)
    assert not moved.parent.exists()


def test_figures_estimate_over_seeds_as_tables_do(scripts: None) -> None:
    from runs import over_seeds

    from vlm_rm_sweeps.evaluation.over_seeds import iqm

    rates = [0.0, 0.7, 0.8, 0.9, float("nan"), 1.0]
    found = over_seeds(pd.Series(rates))
    assert found["value"] == pytest.approx(0.8)  # without the lowest and the highest
    known = [rate for rate in rates if rate == rate]
    assert found[["value", "low", "high"]].tolist() == pytest.approx([float(each) for each in iqm([np.array(known)])])
    assert found["seeds"] == 5
    assert over_seeds(pd.Series([1.0] * 5))[["low", "high"]].isna().all()


@pytest.mark.parametrize(("greedy", "drawn"), [(1.0, ["clip_return"]), ([0.2, 1.0], ["clip_return", "evaluation_success"])])
def test_greedy_success_is_drawn_where_it_was_evaluated_during_training(
    scripts: None, store: str, tmp_path: Path, greedy: Any, drawn: list[str]
) -> None:
    import learning_curves
    import runs

    metrics = {"clip_return": 3.0, "evaluation_success": greedy}
    trial = {"model": "embedded/tiny", "alpha": 0.5, "prompt": "task", "seed": 0, "metrics": metrics}
    folder = sweep_of(tmp_path / f"greedy-{len(drawn)}", store, [trial])
    learning_curves.draw(runs.SweepRuns(folder))
    table = pd.read_csv(folder / "figures" / "learning_curves.csv")
    assert sorted(table["metric"].unique()) == drawn


def test_no_success_at_all_is_drawn_at_the_bottom(
    scripts: None, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import learning_curves
    import runs

    metrics = {"success": [0.0, 0.0], "true_return": [3.0, 4.0]}
    trial = {"model": "embedded/tiny", "alpha": 0.5, "prompt": "task", "seed": 0, "metrics": metrics}
    sweep = runs.SweepRuns(sweep_of(tmp_path / "never", store, [trial]))
    limits: dict[str, tuple[float, float]] = {}

    def keep(drawing: Figure, data: pd.DataFrame, name: str) -> None:
        limits.update({axis.get_ylabel(): axis.get_ylim() for axis in drawing.axes})
        plt.close(drawing)

    monkeypatch.setattr(sweep, "save", keep)
    learning_curves.draw(sweep)
    low, high = limits["success (share of episodes)"]
    assert -0.1 < low < 0
    assert 1 < high < 1.1
    low, high = limits["true return"]
    assert 2 < low < 3
    assert 4 < high < 5


def test_success_is_drawn_against_the_frames_that_were_encoded(scripts: None, store: str, tmp_path: Path) -> None:
    import runs
    import score_every

    def trials(every: int) -> list[dict[str, Any]]:
        tags = {"model": "embedded/tiny", "alpha": 0.5, "prompt": "task"}
        return [
            tags | {"seed": seed, "metrics": {"frames_scored": [800 / every, 800 / every], "evaluation_success": success}}
            for seed, success in enumerate([1.0, 1.0 / every])
        ]

    folders = [sweep_of(tmp_path / f"every-{every}", store, trials(every)) for every in (1, 4)]
    client = MlflowClient(store)
    for run in runs.SweepRuns(folders[1]).children:
        client.log_param(run.info.run_id, "score_every", 4)
    score_every.draw([runs.SweepRuns(folder) for folder in folders])
    table = pd.read_csv(folders[0] / "figures" / "score_every.csv").set_index("score_every")
    assert table["frames"].to_dict() == {1: 1600, 4: 400}
    assert table["value"].to_dict() == {1: 1.0, 4: 0.625}
    assert (folders[0] / "figures" / "score_every.png").stat().st_size > 100
    drawn = (folders[0] / "figures" / "score_every.svg").read_text()
    assert runs.SweepRuns(folders[0]).colours["embedded/tiny"] in drawn
