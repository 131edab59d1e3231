"""Measures of the embedded models, checked with rewards of known measures and against the shipped model card."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from disk import full_disk

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import EPIC_DISTANCE, EPIC_HIGH, EPIC_LOW
from vlm_rm_sweeps.pretraining import evaluate as evaluate_module
from vlm_rm_sweeps.pretraining.evaluate import (
    ALPHAS,
    FamilyResults,
    HeldOutSets,
    check_family,
    describe_captions,
    evaluate_family,
    find_peaks,
    frames_per_second,
    measure_rewards,
    paper_specs,
    render_test_sets,
    retrieve,
    walk_landscapes,
)
from vlm_rm_sweeps.pretraining.held_out import HeldOut, Retrieval
from vlm_rm_sweeps.pretraining.model_card import _prompts, write_model_card
from vlm_rm_sweeps.pretraining.mountain_car import FLAG
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_FOLDER, EMBEDDED_FOLDERS, WORDS, embedded_sizes
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec


class Oracle(RewardModel):
    """A reward model that reads the reward from a frame's first two pixels, times 1 - alpha / 2."""

    parameters = 1_000_000
    frame_format = FrameFormat(64)

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        values = frames[:, 0, 0, 0].astype(np.float32) + 256 * frames[:, 0, 1, 0].astype(np.float32)
        return np.stack([values * (1 - spec.alpha / 2) for spec in specs], axis=1)


def frames_of(values: np.ndarray) -> np.ndarray:
    frames = np.zeros((len(values), 64, 64, 3), np.uint8)
    frames[:, 0, 0], frames[:, 0, 1] = (values % 256)[:, None], (values // 256)[:, None]
    return frames


def test_a_perfect_reward_has_no_distance_and_an_opposite_one_all() -> None:
    values = np.arange(50)
    sets = {"cart pole": HeldOut(frames_of(values), {"cartpole-upright": values.astype(float)})}
    table, means = measure_rewards(Oracle("oracle"), sets)
    assert list(table["alpha"]) == list(ALPHAS)
    np.testing.assert_allclose(table[EPIC_DISTANCE], 0, atol=1e-6)
    np.testing.assert_allclose(table["spearman"], 1)
    np.testing.assert_allclose(means[[EPIC_DISTANCE, EPIC_LOW, EPIC_HIGH]], 0, atol=1e-6)
    sets = {"cart pole": HeldOut(frames_of(values), {"cartpole-upright": -values.astype(float)})}
    np.testing.assert_allclose(measure_rewards(Oracle("oracle"), sets)[1][EPIC_DISTANCE], 1)


def test_the_mean_is_over_the_tasks_of_the_main_sets_alone() -> None:
    values, truth = np.arange(50), np.random.default_rng(0).normal(size=50)
    main = HeldOut(frames_of(values), {"cartpole-upright": values.astype(float), "mountaincar-summit": truth})
    table, means = measure_rewards(Oracle("oracle"), {"cart pole": main, "humanoid, unseen cameras": main})
    assert len(table) == 4 * len(ALPHAS)
    of_main = table[(table["set"] == "cart pole") & (table["alpha"] == 0)]
    assert means[EPIC_DISTANCE].iloc[0] == pytest.approx(of_main[EPIC_DISTANCE].mean())
    assert means[EPIC_LOW].iloc[0] < means[EPIC_DISTANCE].iloc[0] < means[EPIC_HIGH].iloc[0]


def test_peaks_are_where_the_reward_is_largest() -> None:
    degrees = np.arange(-90, 91)
    cars = np.linspace(-1.2, 0.52, 173)
    tests = HeldOutSets(
        sets={},
        retrievals={},
        cart_pole_line=frames_of(1_000 - np.abs(degrees - 10) * 10),
        mountain_car_lines={"modified": frames_of((1_000 - 400 * np.abs(cars - FLAG)).astype(int))},
    )
    peaks = find_peaks(walk_landscapes(Oracle("oracle"), tests))
    poles, cars_painted = (peaks[peaks["landscape"].str.startswith(kind)] for kind in ("pole angle", "car position, modified"))
    assert set(poles["peak"]) == {10.0}
    np.testing.assert_allclose(cars_painted["peak"], FLAG, atol=0.011)
    np.testing.assert_allclose(cars_painted["spearman"], 1, atol=1e-3)


def test_retrieval_counts_frames_whose_own_kind_is_nearest() -> None:
    class Reader(Oracle):
        def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
            own = np.array([["cat", "dog"][value] for value in frames[:, 0, 0, 0]])
            return np.stack([[float(kind in spec.goal_prompts[0]) for kind in own] for spec in specs], axis=1)

    wordings = {"cat": ("a cat", "one cat"), "dog": ("a dog",)}
    retrieval = Retrieval(frames_of(np.array([0, 0, 1, 1])), ["cat", "cat", "dog", "cat"], wordings)
    table = retrieve(Reader("reader"), {"pets": retrieval})
    assert table.loc[0, "found"] == 0.75
    assert table.loc[0, "by_chance"] == 0.5


def test_speeds_are_medians_of_turns_that_the_models_take_in_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    class Slow(Oracle):
        def __init__(self, name: str, pauses: Sequence[float]) -> None:
            super().__init__(name)
            self._pauses = iter(pauses)

        def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
            nonlocal now
            taken.append(self.model_id)
            now += next(self._pauses)
            return super().score(frames, specs)

    # Both are disturbed: in the first pass, which only warms up, and once later.
    models = [Slow("a", [0.2, 0.05, 0.05, 0.3]), Slow("b", [0.2, 0.1, 0.3, 0.1])]
    speeds = frames_per_second(models, frames=100, turns=3)
    assert taken == ["a", "b"] * 4
    assert speeds == pytest.approx([2_000, 1_000])


def test_captions_are_described_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    class Said:
        def __init__(self, caption: str) -> None:
            self._caption = caption

        def caption(self, rng: np.random.Generator) -> str:
            return self._caption

        def foil(self, rng: np.random.Generator) -> "Said":
            return self

    states = [Said("a dog"), Said("a cat"), Said("a bird"), Said("a dog"), Said("a fish")]
    monkeypatch.setattr(evaluate_module, "sample_states", lambda count, seed: [("animals", states)])
    assert describe_captions(60_000, 0).iloc[0].to_dict() == {
        "environment": "animals",
        "images": 50,
        "captions": "4 of 25",
        "examples": "a dog; a cat; a bird; a dog",
    }


def test_paper_specs_are_the_tasks_own_prompts() -> None:
    specs = paper_specs("humanoid-kneeling")
    assert [spec.alpha for spec in specs] == list(ALPHAS)
    assert {spec.goal_prompts for spec in specs} == {("a humanoid robot kneeling",)}


def card_trends() -> dict[str, list[tuple[str, float, float, float]]]:
    """Read the shipped card: for each training seed, the sizes with their mean EPIC distance at alpha 0 and its interval."""
    trends: dict[str, list[tuple[str, float, float, float]]] = {}
    section = (EMBEDDED_FOLDER / "MODEL_CARD.md").read_text().split("## EPIC distance by size")[1].split("##")[0]
    for size, seed, cell in re.findall(r"^\| `embedded/(\w+)` \| (\d+) \| ([^|]*) \|", section, re.MULTILINE):
        mean, low, high = (float(number) for number in re.findall(r"[\d.]+", cell))
        trends.setdefault(seed, []).append((size, mean, low, high))
    return trends


def test_the_card_has_two_trainings_or_more() -> None:
    assert len(card_trends()) >= 2


def test_the_card_knows_all_sizes_and_the_larger_is_the_better_over_the_seeds() -> None:
    trends = list(card_trends().values())
    assert trends
    for trend in trends:
        assert [size for size, *_ in trend] == embedded_sizes()
        assert trend[0][2] > trend[-1][3], "the intervals of the smallest and the largest overlap"
    means = np.mean([[mean for _, mean, _, _ in trend] for trend in trends], axis=0)
    assert (np.diff(means) < 0).all()


@pytest.mark.slow
@pytest.mark.usefixtures("opengl")
def test_the_card_says_what_is_measured() -> None:
    measured = evaluate_family(EMBEDDED_FOLDER, render_test_sets())
    shipped = next(iter(card_trends().values()))
    for size, mean, *_ in shipped:
        row = measured.means[(measured.means["size"] == size) & (measured.means["alpha"] == 0)]
        # Rounding differs between processors.
        assert row[EPIC_DISTANCE].item() == pytest.approx(mean, abs=0.003)


def test_a_prompt_is_one_prompt_however_many_trainings_there_are() -> None:
    tables = {field.name: pd.DataFrame({"size": ["tiny"]}) for field in fields(FamilyResults) if field.name != "folder"}
    rows = [
        ("humanoid-standing", "opposites", prompt, agreement, "tiny")
        for prompt, agreement in zip("abcd", (0.1, 0.2, 0.4, 0.9), strict=True)
    ]
    prompts = pd.DataFrame(rows, columns=["task", "group", "prompt", "agreement", "size"])
    of_one = FamilyResults(Path(), **tables | {"prompts": prompts})
    assert "| humanoid-standing | opposites | 4 | 0.40 [" in _prompts([of_one])
    assert _prompts([of_one, of_one]) == _prompts([of_one])


def prose(card: str) -> list[str]:
    """List the lines of a card that are neither a table's nor a command."""
    varying = ("|", "vlm-rm pretrain --size")
    return [line for line in card.splitlines() if not line.startswith(varying)]


@pytest.mark.usefixtures("opengl")
def test_a_card_is_written_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlm_rm_sweeps.pretraining import held_out
    from vlm_rm_sweeps.pretraining.train import pretrain

    for name, count in (
        ("STATES", 40),
        ("STATES_OF_A_POSE", 3),
        ("STATES_BETWEEN_POSES", 5),
        ("STATES_VISITED", 5),
        ("_CASES", 2),
    ):
        monkeypatch.setattr(held_out, name, count)
    monkeypatch.setattr(evaluate_module, "_CAPTIONED_STATES", 400)
    monkeypatch.setattr(evaluate_module, "_LINE_DEGREES", np.array([-90.0, 0.0, 90.0]))
    monkeypatch.setattr(evaluate_module, "_LINE_POSITIONS", np.array([-1.0, 0.0, 0.45]))
    pretrain(["tiny"], samples=256, images=40, seed=3, folder=tmp_path, start=EMBEDDED_FOLDERS["v1"])
    results = evaluate_family(tmp_path, render_test_sets())
    text = write_model_card([results]).read_text()
    mean = results.means[results.means["alpha"] == 0][EPIC_DISTANCE].item()
    assert f"| `embedded/tiny` | 3 | {mean:.3f} [" in text
    assert "vlm-rm pretrain --size tiny --seed 3 --samples 256 --images 40 --from FOLDER\n" in text
    assert "| cart pole | 12 | " in text
    assert prose(text) == prose((EMBEDDED_FOLDER / "MODEL_CARD.md").read_text())
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert {"MODEL_CARD.md", "held_out.csv", "scaling.png", "landscapes.png"} <= {file.name for file in files}
    with full_disk(room=100), pytest.raises(OSError, match="File too large"):
        write_model_card([results])
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files


def test_a_family_that_cannot_be_evaluated_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="no size has been trained"):
        check_family(tmp_path)
    shutil.copy(EMBEDDED_FOLDER / "manifest.json", tmp_path)
    with pytest.raises(UserError, match=r"embedded-small.safetensors .* is missing"):
        check_family(tmp_path)
    old = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "of version 0.1", ignore=shutil.ignore_patterns(WORDS))
    with pytest.raises(UserError, match=r"words.txt cannot be read .* train the family again"):
        check_family(old)
    check_family(EMBEDDED_FOLDER)
