"""Distillation: a student that comes near its teacher on states that it has not seen, with the teacher's texts, to the bit."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from exported import SMALL_VIT, export
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch.nn import functional

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states, states_of_policies
from vlm_rm_sweeps.evaluation.score import score_frames
from vlm_rm_sweeps.evaluation.states import StateDataset, write_states
from vlm_rm_sweeps.pretraining.distill import CARD, FIDELITY, distill
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.distilled import STUDENT_FILE, TowerShape, read_description
from vlm_rm_sweeps.rewards.functions.softmax import Softmax
from vlm_rm_sweeps.rewards.registry import find_reward_model, load_reward_model
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig
from vlm_rm_sweeps.sweeping.config.yaml_file import read_sweep_keys
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.checkpoints import Checkpoint

TASK = find_task("cartpole-upright")
MOUNTAIN_CAR = find_task("mountaincar-summit")
TEACHER = "embedded/base"


def distilled(folder: Path, seed: int = 0, teacher: str = TEACHER, datasets: Sequence[StateDataset] = ()) -> Path:
    distill(teacher, TASK, "embedded/tiny", datasets, images=160, epochs=2, seed=seed, folder=folder, say=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distilled(tmp_path_factory.mktemp("distilled") / "student")


@pytest.fixture(scope="module")
def of_a_transformer(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The model id of a vision transformer with random weights, and the folder of its student."""
    folder = tmp_path_factory.mktemp("transformer")
    teacher = str(export(folder, SMALL_VIT, {}))
    return teacher, distilled(folder / "student", teacher=teacher)


def model_in(folder: Path) -> ClipRewardModel:
    model = load_reward_model(f"distilled/{folder / STUDENT_FILE}")
    assert isinstance(model, ClipRewardModel)
    return model


def test_it_comes_near_its_teacher_on_held_out_states_and_says_how_near(folder: Path) -> None:
    fidelity = pd.read_csv(folder / FIDELITY)
    assert fidelity["alpha"].unique().tolist() == [0.0, 0.5, 1.0]
    assert fidelity["prompt"].nunique() == 3
    assert fidelity["states"].unique().tolist() == ["drawn"]
    assert fidelity["images"].unique().tolist() == [32]
    # After two epochs, for the task's own sentence; of the scene without the goal, rewards hardly differ between states.
    assert fidelity[fidelity["prompt"] == TASK.goal_prompt]["spearman"].min() > 0.7
    card = (folder / CARD).read_text()
    assert "Fidelity on 32 images that it has not seen" in card
    assert "times as fast" in card
    row = fidelity.iloc[0]
    assert row.missed < 0.5
    assert 0.9 < row.cosine_5th < row.cosine < 1
    shown = f"| {row.cosine:.4f} | {row.cosine_5th:.4f} | {100 * row.missed:.1f} % | {100 * row.drift:.1f} % |"
    assert f"| drawn | 32 {shown}" in card


def test_texts_are_the_teachers_and_any_reward_goes_on_working(folder: Path) -> None:
    teacher, student = load_reward_model(TEACHER), model_in(folder)
    assert isinstance(teacher, ClipRewardModel)
    np.testing.assert_array_equal(student.encode_prompt("a pole"), teacher.encode_prompt("a pole"))
    assert student.source.unknown_words(["a zebra"]) == teacher.source.unknown_words(["a zebra"]) == ["zebra"]
    assert (student.width, student.source.preprocessing.size) == (teacher.width, 64)
    spec = RewardSpec(("an upright pole",), ("a pole",), function=Softmax(negatives=("pole hanging down",)))
    student.check(spec)
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    assert np.isfinite(student.score(frames, [spec, RewardSpec(("an upright pole",), ("a pole",), 0.5)])).all()
    visual = sum(each.numel() for each in student.network.parameters())
    assert find_reward_model(student.model_id).parameters == visual < teacher.parameters


SPEC = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.5)


def test_it_tells_states_that_it_has_not_seen_the_like_of(folder: Path) -> None:
    student = model_in(folder)
    assert student.columns == ("drift",) == PoolConfig.of("pool", student).columns
    drift = SPEC.column("drift")
    student.check(drift)
    with pytest.raises(UserError, match="embedded/tiny has no column 'drift': expected a model that has columns"):
        find_reward_model("embedded/tiny").check(drift)
    known, foreign = ([state.frame for state in sampled_states(task, 40, seed=5)] for task in (TASK, MOUNTAIN_CAR))
    shares = [score_frames(student, frames, [drift]).mean() for frames in (known, foreign)]
    assert shares[0] < 0.2  # after two epochs on 128 images it takes some for unlike
    assert shares[1] == 1
    remarks: list[str] = []
    told = np.mean([*score_frames(student, known[:20], [drift]), *[[1.0]] * 9])
    score_frames(student, known[:20] + foreign[:9], [SPEC], remarks.append)
    (remark,) = remarks
    assert f"{100 * told:.0f} % of these states are unlike" in remark
    with pytest.raises(UserError, match=r"100 % of these states are unlike .* expected at most 50 %; measure its teacher"):
        score_frames(student, foreign, [SPEC], remarks.append)
    assert f"{100 * pd.read_csv(folder / FIDELITY)['drift'][0]:.1f} % of the held-out images" in (folder / CARD).read_text()


def test_rewards_are_the_same_with_and_without_drift_and_whatever_the_batch(folder: Path) -> None:
    student = model_in(folder)
    frames = np.stack([state.frame for state in sampled_states(TASK, 5, seed=6)])
    asked = student.score(frames, [SPEC, SPEC.column("drift")])
    np.testing.assert_array_equal(asked[:, :1], student.score(frames, [SPEC]))
    alone = [student.score(frame[None], [SPEC, SPEC.column("drift")]) for frame in frames]
    np.testing.assert_array_equal(asked, np.concatenate(alone))
    folded = find_reward_model(student.model_id)
    folded.use_backend("folded")
    folded.load()
    np.testing.assert_allclose(folded.score(frames, [SPEC]), asked[:, :1], atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("teacher", [TEACHER, "transformer"])
def test_it_works_in_half_precision_whatever_the_teacher_is(
    folder: Path, of_a_transformer: tuple[str, Path], teacher: str, precision: Precision
) -> None:
    file = (of_a_transformer[1] if teacher == "transformer" else folder) / STUDENT_FILE
    full, half = (find_reward_model(f"distilled/{file}") for _ in range(2))
    full.load()
    half.use_backend("torch", precision=precision)
    half.load(precision=precision)
    frames = np.stack([state.frame for state in sampled_states(TASK, 12, seed=7)])
    columns = [SPEC, SPEC.column("drift")]
    in_full, in_half = full.score(frames, columns), half.score(frames, columns)
    np.testing.assert_allclose(in_half[:, 0], in_full[:, 0], atol=0.03)
    assert np.abs(in_half[:, 1] - in_full[:, 1]).mean() < 0.2  # of states at the limit


def test_statistics_that_do_not_fit_the_tower_are_a_damaged_file(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / STUDENT_FILE)
    with safe_open(folder / STUDENT_FILE, "np") as opened:
        metadata = opened.metadata()
    for wrong in (np.zeros(3), np.full_like(tensors["drift.mean"], np.nan)):
        save_file(tensors | {"drift.mean": wrong}, tmp_path / STUDENT_FILE, metadata)
        with pytest.raises(UserError, match=r"is damaged .*distil again"):
            model_in(tmp_path)


def test_the_same_seed_gives_the_same_weights(folder: Path, tmp_path: Path) -> None:
    first, again = (load_file(each / STUDENT_FILE) for each in (folder, distilled(tmp_path / "again")))
    assert first.keys() == again.keys()
    for name, tensor in first.items():
        np.testing.assert_array_equal(again[name], tensor)


def test_what_cannot_be_distilled_is_one_message(folder: Path, tmp_path: Path) -> None:
    def refused(teacher: str, student: str, message: str, into: Path = tmp_path / "new") -> None:
        with pytest.raises(UserError, match=message):
            distill(teacher, TASK, student, [], images=160, epochs=1, seed=0, folder=into, say=lambda line: None)
        assert not (tmp_path / "new").exists()

    refused("own_rewards:Brightness", "embedded/tiny", "expected a CLIP model, such as 'embedded/large'")
    refused(TEACHER, "ViT-B-32/laion2b_s34b_b79k", "expected a model of the embedded family")
    refused(TEACHER, TEACHER, "both teacher and student")
    refused(TEACHER, "embedded/tiny", "exists already", into=folder)


def test_a_student_that_is_damaged_or_whose_teacher_has_changed_is_one_message(folder: Path, tmp_path: Path) -> None:
    content = (folder / STUDENT_FILE).read_bytes()
    file = tmp_path / STUDENT_FILE
    with pytest.raises(UserError, match=r"there is no such file: expected `distilled/FOLDER/student.safetensors`"):
        find_reward_model(f"distilled/{file}")
    file.write_bytes(content[:200])
    with pytest.raises(UserError, match=r"is damaged .*distil again"):
        find_reward_model(f"distilled/{file}")
    identity = load_reward_model(TEACHER).weights_identity  # type: ignore[attr-defined]
    file.write_bytes(content.replace(identity[-12:].encode(), b"0123456789ab"))
    with pytest.raises(UserError, match=r"has learned from embedded/v2/base with the weights .*distil again"):
        load_reward_model(f"distilled/{file}")


def test_a_students_file_decides_neither_what_is_imported_nor_how_much_is_built(folder: Path, tmp_path: Path) -> None:
    content, file = (folder / STUDENT_FILE).read_bytes(), tmp_path / STUDENT_FILE
    named = read_description(folder / STUDENT_FILE).teacher.encode()
    # A module of Python's own, which a search would find. The name is as long, or else the file would be damaged.
    file.write_bytes(content.replace(named, b"wave:".ljust(len(named), b"T")))
    with pytest.raises(UserError, match="wave"):
        find_reward_model(f"distilled/{file}")
    assert "wave" not in sys.modules
    tower = read_description(folder / STUDENT_FILE).tower.model_dump()
    with pytest.raises(ValidationError, match="layers"):
        TowerShape.model_validate(tower | {"layers": [10**9, 1, 1, 1]})


def test_a_large_models_folder_teaches_at_an_input_size_of_its_own(of_a_transformer: tuple[str, Path]) -> None:
    student, teacher = model_in(of_a_transformer[1]), load_reward_model(of_a_transformer[0])
    assert isinstance(teacher, ClipRewardModel)
    assert (teacher.frame_format.size, student.frame_format.size) == (32, 64)
    np.testing.assert_array_equal(student.encode_prompt("a pole"), teacher.encode_prompt("a pole"))
    frames = np.stack([state.frame for state in sampled_states(TASK, 40, seed=7)])
    # Random weights tell states apart by little, so after two epochs no more than this can be asked.
    assert functional.cosine_similarity(student.encode_frames(frames), teacher.encode_frames(frames)).min() > 0.99


def test_whole_episodes_of_policies_are_learned_and_held_out(saved_policy: Callable[..., Checkpoint], tmp_path: Path) -> None:
    states = list(states_of_policies([saved_policy(tmp_path / "trial")], 6, 40, seed=3, say=lambda line: None))
    dataset = write_states(tmp_path / "rollouts", TASK, states)
    each = len(dataset) // 6
    student = distilled(tmp_path / "student", datasets=[dataset])
    assert read_description(student / STUDENT_FILE).images == 128 + 5 * each
    card, fidelity = (student / CARD).read_text(), pd.read_csv(student / FIDELITY)
    assert f"Fidelity on {32 + each} images that it has not seen" in card
    sets = fidelity.drop_duplicates("states").set_index("states")
    assert sets["images"].to_dict() == {"drawn": 32, str(dataset.folder): each, "all": 32 + each}
    weights = sets["images"][:2]
    for name in ("cosine", "drift"):
        assert sets[name]["all"] == pytest.approx(np.average(sets[name][:2], weights=weights))
    assert len(fidelity) == 3 * len(sets) * 3
    assert f"| {dataset.folder} | {each} | {sets['cosine'][str(dataset.folder)]:.4f} |" in card
    other = write_states(tmp_path / "other", MOUNTAIN_CAR, sampled_states(MOUNTAIN_CAR, 3, seed=0))
    with pytest.raises(UserError, match=r"other has states of mountaincar-summit: expected states of cartpole-upright"):
        distilled(tmp_path / "refused", datasets=[dataset, other])
    assert not (tmp_path / "refused").exists()


def test_another_scene_than_it_has_seen_is_refused(folder: Path, tmp_path: Path) -> None:
    model = find_reward_model(f"distilled/{folder / STUDENT_FILE}")
    model.check_scene(TASK.name, "original", "default")
    with pytest.raises(
        UserError, match=r"has seen states of cartpole-upright, drawn with original textures and default camera,"
    ):
        model.check_scene(MOUNTAIN_CAR.name, "original", "default")
    for textures, camera in (("modified", "default"), ("original", "paper")):
        with pytest.raises(UserError, match=rf"--textures {textures} --camera {camera}`"):
            model.check_scene(TASK.name, textures, camera)
    # A student of before scenes were written down is told from another task's alone.
    with safe_open(folder / STUDENT_FILE, "np") as opened:
        about = json.loads(opened.metadata()["distilled"])
    assert about.pop("scenes") == [["original", "default"]]
    save_file(load_file(folder / STUDENT_FILE), tmp_path / STUDENT_FILE, {"distilled": json.dumps(about)})
    earlier = find_reward_model(f"distilled/{tmp_path / STUDENT_FILE}")
    earlier.check_scene(TASK.name, "modified", "paper")
    with pytest.raises(UserError, match="has seen states of cartpole-upright alone, and these would be of mountaincar-summit"):
        earlier.check_scene(MOUNTAIN_CAR.name, "original", "default")


def test_a_sweep_file_names_it_relative_to_itself(folder: Path) -> None:
    file = folder.parent / "sweep.yaml"
    file.write_text(json.dumps({"models": [f"distilled/student/{STUDENT_FILE}"]}))
    assert read_sweep_keys(file)["models"] == [f"distilled/{folder / STUDENT_FILE}"]
