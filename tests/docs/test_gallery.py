"""The gallery: pages come from results alone, and a page of what has changed since is found."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pages import REPOSITORY, text_of

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import TrialStatus
from vlm_rm_sweeps.sweeping.config.plan import Plan, make_plan
from vlm_rm_sweeps.sweeping.config.sweep import load_sweep
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import Journal, SweepStarted, TrialStarted
from vlm_rm_sweeps.sweeping.tracking.provenance import Provenance, provenance
from vlm_rm_sweeps.sweeping.tracking.results import TrialOutcome, read_results, results_table
from vlm_rm_sweeps.videos import EpisodeContent, write_episode, write_picture, write_video

PAGES = sorted(page.name for page in (REPOSITORY / "docs" / "gallery").glob("*.md") if page.stem != "index")


@pytest.fixture(scope="module")
def gallery() -> Any:
    specification = importlib.util.spec_from_file_location("docs_gallery", REPOSITORY / "docs" / "gallery.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def head() -> str:
    described = subprocess.run(["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True)
    if described.returncode:
        pytest.skip("this is no checkout")
    return described.stdout.strip()


def record(folder: SweepFolder, trial: Trial, in_goal: float | None) -> None:
    """Leave what a trial's recorded episode leaves; None if the task has no success test."""
    video = folder.trial(trial.trial_id) / "video" / "episode.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    write_video([np.full((16, 16, 3), 20 * shade, np.uint8) for shade in range(12)], video)
    about: EpisodeContent = {
        "task": "cartpole-upright",
        "env_steps": 7168,
        "seed": 10_000,
        "clip_return": 1.0,
        "true_return": None if in_goal is None else 200 * in_goal,
        "goal_fraction": in_goal,
        "success": None if in_goal is None else in_goal >= 0.5,
    }
    write_episode(video.parent, about)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_sweep(REPOSITORY / "sweeps" / "quickstart.yaml"))


@pytest.fixture(scope="module")
def finished(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the quick start leaves, as far as a page needs it."""
    folder = SweepFolder(tmp_path_factory.mktemp("results") / "quickstart-20260101-120000")
    folder.create(plan.sweep)
    metrics = {"evaluation_success": 0.75, "evaluation_true_return": 150.0}
    results_table([TrialOutcome(trial, TrialStatus.FINISHED, "", metrics) for trial in plan.trials]).to_csv(
        folder.table, index=False
    )
    journal = Journal(folder.journal)
    journal.append(SweepStarted(id="a", time=1_700_000_000_000))
    journal.append(TrialStarted(trial="t", time=1_700_000_090_000))
    record(folder, plan.trials[2], 0.84)
    (folder.path / "figures").mkdir()
    write_picture(np.zeros((8, 8, 3), np.uint8), folder.path / "figures" / "learning_curves.png")
    return folder.path


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / finished.name))


@pytest.fixture
def known(gallery: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Results say where they come from."""

    def come_from(commit: str) -> None:
        def found(folder: SweepFolder) -> Provenance:
            from_journal = provenance(folder)
            return Provenance(commit, {"ray": "1.2"}, "Some CPU, 2 cores", from_journal.started, from_journal.seconds, "")

        monkeypatch.setattr(gallery, "provenance", found)

    return come_from


def test_a_page_has_findings_pictures_table_origin_and_sweep_file(
    gallery: Any, known: Any, results: Path, tmp_path: Path
) -> None:
    known(head())
    page = gallery.write_page(results, tmp_path / "gallery")
    text = page.read_text(encoding="utf-8")
    assert gallery.mark_on(text) == gallery.mark_of(REPOSITORY / "sweeps" / "quickstart.yaml")
    assert gallery.seal_on(text) == gallery.seal_of(text)
    for part in (
        "Eight combinations are equally good, with a success of 0.75",
        "| embedded/small, alpha 0.5, prompt balanced | 1 | 0.75 | 150.0 |",
        "| machine | Some CPU, 2 cores |",
        "| time | 1 min 30 s, for 10 trials, without the start of the command and of Ray |",
        f"| commit | `{head()}` |",
        "| command | `make sweep SWEEP=sweeps/quickstart.yaml` |",
        (REPOSITORY / "sweeps" / "quickstart.yaml").read_text(encoding="utf-8").rstrip(),
    ):
        assert part in text
    assert str(tmp_path) not in text
    shown = re.findall(r"\]\((quickstart/\S+)\)", text)
    assert shown == ["quickstart/episode.jpg", "quickstart/episode.mp4", "quickstart/learning_curves.png"]
    assert all((page.parent / file).stat().st_size > 50 for file in shown)


def test_a_page_keeps_its_pictures_until_the_next_one_is_whole(
    gallery: Any, known: Any, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(head())
    pictures = gallery.write_page(results, tmp_path / "gallery").with_suffix("")
    (results / "figures" / "learning_curves.png").rename(results / "figures" / "alpha.png")
    monkeypatch.setattr(gallery, "_check", lambda *given: None)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(gallery, "findings", lambda *given: int("interrupted"))
        with pytest.raises(ValueError, match="interrupted"):
            gallery.write_page(results, tmp_path / "gallery")
    assert (pictures / "learning_curves.png").is_file()
    gallery.write_page(results, tmp_path / "gallery")
    assert {file.name for file in pictures.iterdir()} == {"alpha.png", "episode.jpg", "episode.mp4"}


SHOWN = "The best recorded episode: {}, seed 0, its best policy, of step 7,168"


@pytest.mark.parametrize(
    ("recorded", "outcome"),
    [
        ((0.31, 0.84, 0.9), "embedded/small, alpha 0, prompt paper; a success, 90 % of its steps in the goal"),
        ((0.31, 0.155, 0.0), "embedded/tiny, alpha 0, prompt paper; no success, 31 % of its steps in the goal"),
        ((0.84, 0.84, 0.84), "embedded/tiny, alpha 0.5, prompt paper; a success, 84 % of its steps in the goal"),
        ((None, None, None), "embedded/tiny, alpha 0.5, prompt paper"),
    ],
)
def test_the_best_recorded_episode_is_shown_and_its_caption_says_how_it_went(
    gallery: Any, known: Any, plan: Plan, results: Path, tmp_path: Path, recorded: tuple[float | None, ...], outcome: str
) -> None:
    """What the video shows decides; only among equal episodes, what the trials reached, of which here the second is the best."""
    known(head())
    folder = SweepFolder(results)
    shutil.rmtree(folder.path / "trials")
    record(folder, plan.trials[0], 1.0)  # a reference, which is never shown
    chosen = [plan.trials[place] for place in (2, 4, 6)]
    for trial, in_goal in zip(chosen, recorded, strict=True):
        record(folder, trial, in_goal)
    table = read_results(folder.table)
    table.loc[table["trial_id"] == chosen[1].trial_id, "success"] = 1.0
    table.to_csv(folder.table, index=False)
    text = gallery.write_page(results, tmp_path / "gallery").read_text(encoding="utf-8")
    of, _, went = outcome.partition(";")
    caption = SHOWN.format(of) + (f";{went}" if went else "")
    assert f"![{caption}](quickstart/episode.jpg)" in text
    assert f"*{caption}.* [Its video](quickstart/episode.mp4)." in text


def test_of_a_sweep_without_videos_the_page_says_so(
    gallery: Any, known: Any, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(head())
    said = "This sweep recorded no videos (`videos: false`)."
    assert said not in gallery.write_page(results, tmp_path / "with").read_text(encoding="utf-8")
    folder = SweepFolder(results)
    shutil.rmtree(folder.path / "trials")
    folder.sweep_file.write_text(yaml.safe_dump(yaml.safe_load(folder.sweep_file.read_text()) | {"videos": False}))
    monkeypatch.setattr(gallery, "_check", lambda *given: None)
    page = gallery.write_page(results, tmp_path / "without")
    assert f"\n\n{said}\n\n![Learning curves" in page.read_text(encoding="utf-8")
    assert gallery._found(page).startswith("Compared on cartpole-upright")


def test_a_trial_that_a_goal_ended_is_done(gallery: Any, known: Any, results: Path, tmp_path: Path) -> None:
    known(head())
    table = SweepFolder(results).table
    table.write_text(table.read_text().replace("finished,", "stopped,"))
    assert gallery.write_page(results, tmp_path / "gallery").is_file()


def test_the_index_and_the_navigation_follow(gallery: Any, known: Any, results: Path, tmp_path: Path) -> None:
    known(head())
    gallery.write_page(results, tmp_path / "gallery")
    settings = tmp_path / "mkdocs.yml"
    settings.write_text("nav:\n  - Gallery:\n      # gallery\n      - gallery/old.md\n      # end of gallery\n  - Next: a.md\n")
    gallery.write_index(tmp_path / "gallery", settings)
    index = (tmp_path / "gallery" / "index.md").read_text()
    assert "- [quickstart](quickstart.md): Compared on cartpole-upright: 2 models" in index
    _, waiting, on_gpu, screenings = re.split(r"^## .*$", index, flags=re.MULTILINE)
    shipped = {file.name for file in (REPOSITORY / "sweeps").glob("*.yaml")}
    listed = [set(re.findall(r"sweeps/(\S+\.yaml)\)", part)) for part in (waiting, on_gpu, screenings)]
    assert listed[0] | listed[1] | listed[2] | {"quickstart.yaml"} == shipped
    assert listed[2] == {"screen_cartpole.yaml"}
    assert "paper_cartpole.yaml" in listed[1]
    assert "paper_cartpole_fast.yaml" in listed[0]
    entries = settings.read_text().splitlines()
    assert entries[2:6] == [
        "      # gallery",
        "      - gallery/index.md",
        "      - gallery/quickstart.md",
        "      # end of gallery",
    ]


@pytest.mark.parametrize(
    ("commit", "message"),
    [
        ("", "does not say which code made it"),
        ("0" * 40 + "-dirty", "-dirty"),
        ("0" * 40, "from which this one does not follow"),
    ],
)
def test_results_of_unknown_code_make_no_page(
    gallery: Any, known: Any, results: Path, tmp_path: Path, commit: str, message: str
) -> None:
    known(commit)
    with pytest.raises(UserError, match=message):
        gallery.write_page(results, tmp_path / "gallery")
    assert not (tmp_path / "gallery").exists()


def test_results_of_another_checkout_make_a_page(gallery: Any, tmp_path: Path) -> None:
    file = "sweeps/heads/cartpole_upright.safetensors"
    here, elsewhere = f"  head: {REPOSITORY}/{file}", f"  head: /elsewhere/{file}"
    for found, now, same in (
        (elsewhere, here, True),
        (f"  tail: /elsewhere/{file}", here, False),
        (elsewhere, f"  head: {REPOSITORY}/sweeps/heads/gone", False),
        ("steps: 3", "steps: 4", False),
    ):
        differences = "\n".join(["--- stored", "+++ now", "@@ -1 +1 @@", f"-{found}", f"+{now}"])
        assert gallery._moved(differences, head()) == ("" if same else differences)
    assert gallery._moved("", head()) == ""


def test_results_of_another_sweep_or_unfinished_ones_make_no_page(
    gallery: Any, known: Any, results: Path, tmp_path: Path
) -> None:
    known(head())
    folder = SweepFolder(results)
    table = folder.table.read_text()
    folder.table.write_text(table.replace("finished,", "failed,", 1))
    with pytest.raises(UserError, match="trials that are not done"):
        gallery.write_page(results, tmp_path / "gallery")
    folder.table.write_text(table)
    (results / "figures" / "learning_curves.png").unlink()
    with pytest.raises(UserError, match="has not been drawn: make analysis"):
        gallery.write_page(results, tmp_path / "gallery")
    stored = yaml.safe_load(folder.sweep_file.read_text())
    folder.sweep_file.write_text(yaml.safe_dump(stored | {"steps": 9_000}))
    with pytest.raises(UserError, match=r"is not of sweeps/quickstart\.yaml as it is now"):
        gallery.write_page(results, tmp_path / "gallery")
    folder.sweep_file.write_text(yaml.safe_dump(stored | {"name": "mine"}))
    with pytest.raises(UserError, match="the gallery has shipped sweeps alone"):
        gallery.write_page(results, tmp_path / "gallery")
    assert not (tmp_path / "gallery").exists()


@pytest.mark.parametrize("page", PAGES)
def test_no_page_was_edited_by_hand(gallery: Any, page: str) -> None:
    text = text_of(f"docs/gallery/{page}")
    assert gallery.seal_on(text) == gallery.seal_of(text)
    assert gallery.seal_of(text.replace("| seeds | ", "| seeds | 9, ")) != gallery.seal_on(text)


@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_stale(gallery: Any, page: str) -> None:
    """Written anew with `make gallery`, or removed: its sweep file or the embedded models are others now."""
    text, file = text_of(f"docs/gallery/{page}"), gallery.shipped(page.removesuffix(".md"))
    assert gallery.mark_on(text) == gallery.mark_of(file)
    assert text.endswith(f"```text\n{file.read_text(encoding='utf-8').rstrip()}\n```\n"), "run `python docs/gallery.py`"


def test_a_page_quotes_its_sweep_file_as_it_is_now(gallery: Any, known: Any, results: Path, tmp_path: Path) -> None:
    known(head())
    page = gallery.write_page(results, tmp_path / "gallery")
    written = page.read_text(encoding="utf-8")
    page.write_text(written.replace("# CartPole from a sentence", "# As it was before"), encoding="utf-8")
    gallery.quote_anew(page)
    assert page.read_text(encoding="utf-8") == written
