"""The report of a sweep: whole in one file, and nothing that a prompt says becomes part of the page."""

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import yaml
from disk import full_disk

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import TrialStatus
from vlm_rm_sweeps.palette import REFERENCE_COLOURS, model_colours
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import Journal, ResultLogged
from vlm_rm_sweeps.sweeping.tracking.report import write_report
from vlm_rm_sweeps.sweeping.tracking.results import TrialOutcome, results_table
from vlm_rm_sweeps.videos import EpisodeContent, write_episode, write_picture, write_video

IMAGE = "<img src=x onerror=alert(1)>"
SCRIPT = "</pre><script>alert(1)"
QUOTES = "\"'&</td><script>"
PLAN = plan_of(
    {
        "name": "reported",
        "task": "cartpole-upright",
        "models": ["embedded/tiny"],
        "alphas": [0.0, 0.5, 1.0],
        "prompts": [{"id": "1", "goal": IMAGE, "baseline": SCRIPT}],
        "steps": 4000,
    }
)


class Page(HTMLParser):
    """The tags and addresses of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "poster")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """What a sweep leaves of a reference, two trials that finished and one that failed."""
    folder = SweepFolder(tmp_path_factory.mktemp("results") / "reported-20260101-120000")
    folder.create(PLAN.sweep)
    reference, good, bad, failed = PLAN.trials
    finished = [(reference, 1.0, 190.0), (good, 0.75, 150.0), (bad, 0.25, 40.0)]
    outcomes = [
        TrialOutcome(trial, TrialStatus.FINISHED, "", {"evaluation_success": success, "evaluation_true_return": value})
        for trial, success, value in finished
    ]
    outcomes.append(TrialOutcome(failed, TrialStatus.FAILED, f"it said {QUOTES}", {}))
    results_table(outcomes).to_csv(folder.table, index=False)
    frames = [np.full((16, 16, 3), shade, np.uint8) for shade in (0, 255)]
    # What a trial's best policy did is not what its last one does: here the trial that ended worse had the better one.
    for (trial, *_), in_goal in zip(finished, (1.0, 0.5, 0.9), strict=True):
        video = folder.trial(trial.trial_id) / "video" / "episode.mp4"
        video.parent.mkdir(parents=True)
        write_video(frames, video)
        numbers: dict[str, Any] = {"clip_return": 12.0, "true_return": 200 * in_goal, "goal_fraction": in_goal, "success": True}
        about = cast(EpisodeContent, {"task": "cartpole-upright", "env_steps": 2000, "seed": 5} | numbers)
        write_episode(video.parent, about)
    (folder.path / "figures").mkdir()
    write_picture(frames[0], folder.path / "figures" / "learning_curves.png")
    return folder


@pytest.fixture
def folder(reported: SweepFolder, tmp_path: Path) -> SweepFolder:
    """A copy of it."""
    return SweepFolder(shutil.copytree(reported.path, tmp_path / reported.path.name))


def test_is_whole_in_one_file(folder: SweepFolder) -> None:
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    # A figure, and for each video a film strip for paper.
    assert (page.tags.count("video"), page.tags.count("img")) == (2, 3)
    assert all(address.startswith("data:") for address in page.addresses)
    files = [base64.b64decode(address.split(",")[1]) for address in page.addresses]
    assert (folder.path / "figures" / "learning_curves.png").read_bytes() in files
    for part in ("3 of 4 trials finished", "4,000 environment steps", "0.75", "embedded/tiny", "steps_per_result: 1000"):
        assert part in page.text
    shown = "its best policy, chosen with exploration, of step 2,000, in the episode with seed 5"
    assert (
        f"best episode: embedded/tiny, alpha 0.5, prompt 1, seed 0: {shown}, 90 % of its steps in the goal, true return 180, "
        "CLIP return 12. After training, its last policy: success 0.25, true return 40"
    ) in page.text
    assert f"worst episode: embedded/tiny, alpha 0, prompt 1, seed 0: {shown}, 50 % of its steps in the goal" in page.text


def test_begins_with_what_was_found(folder: SweepFolder) -> None:
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    body = " ".join(page.text.partition("}\n")[2].split())
    said = "Compared on cartpole-upright: 2 alphas, 1 seed each. Highest is embedded/tiny, alpha 0, prompt 1, with a success of 0.75"
    assert said in body
    assert body.index(said) < body.index("Results") < body.index("How to reproduce")
    assert "vlm-rm sweep reported.yaml" in body


def test_trials_that_a_goal_ended_show_their_videos(folder: SweepFolder) -> None:
    folder.table.write_text(folder.table.read_text().replace("finished,", "stopped,"))
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    assert page.tags.count("video") == 2
    assert "0 of 4 trials finished, 3 stopped early" in page.text


def test_a_model_has_one_colour_and_references_are_grey(folder: SweepFolder) -> None:
    page = write_report(folder.path).read_text(encoding="utf-8")
    shown = set(re.findall(r"--colour: (#\w+)", page))
    assert shown == {model_colours(["embedded/tiny"])["embedded/tiny"], REFERENCE_COLOURS[0]}


def test_a_video_that_cannot_be_read_is_left_out(folder: SweepFolder) -> None:
    (folder.trial(PLAN.trials[1].trial_id) / "video" / "episode.mp4").write_bytes(b"no video")
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    assert page.tags.count("video") == 1
    assert "episode.mp4 cannot be read" in page.text


def test_the_audit_is_summed_up(folder: SweepFolder) -> None:
    assert "not audited" in write_report(folder.path).read_text(encoding="utf-8")
    stored = yaml.safe_load(folder.sweep_file.read_text()) | {"audit": {"alphas": [0.25]}}
    folder.sweep_file.write_text(yaml.safe_dump(stored))
    table = pd.read_csv(folder.table)
    table.assign(overoptimisation_alarm=[float("nan"), 1.0, 0.0, float("nan")]).to_csv(folder.table, index=False)
    page = write_report(folder.path).read_text(encoding="utf-8")
    assert "In 1 of 2 audited trials" in page
    assert "drift" not in page


def test_what_the_audit_said_is_in_it_and_how_often(folder: SweepFolder) -> None:
    stored = yaml.safe_load(folder.sweep_file.read_text()) | {"audit": {"models": ["openai/vlm"]}}
    folder.sweep_file.write_text(yaml.safe_dump(stored))
    _, one, other, _ = (trial.trial_id for trial in PLAN.trials)
    journal, down = Journal(folder.journal), f"the audit goes on without openai/vlm: it said {QUOTES}"
    for step, trial, remarks in (
        (1, one, ("it judges by goal and baseline alone", down)),
        (2, one, (down,)),
        (2, other, (down,)),
    ):
        journal.append(ResultLogged(time=step, trial=trial, step=step, metrics={}, remarks=remarks))
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    assert f"{down} (3 audit points of 2 trials)" in page.text
    assert "it judges by goal and baseline alone (1 audit point of 1 trial)" in page.text
    for number in range(30):
        journal.append(ResultLogged(time=3, trial=one, step=3, metrics={}, remarks=(f"remark {number}",)))
    assert "12 more, see journal.jsonl" in write_report(folder.path).read_text(encoding="utf-8")


def test_the_report_says_where_distilled_models_do_not_know_the_states(folder: SweepFolder) -> None:
    stored = yaml.safe_load(folder.sweep_file.read_text()) | {"audit": {"alphas": [0.25]}}
    folder.sweep_file.write_text(yaml.safe_dump(stored))
    table = pd.read_csv(folder.table)
    table.assign(**{"audit_column/drift": [float("nan"), 0.31, 0.05, float("nan")]}).to_csv(folder.table, index=False)
    page = write_report(folder.path).read_text(encoding="utf-8")
    assert "In 1 of 2 audited trials of distilled models, more than 5 % of the last frames were unlike those" in page
    assert "the most: 31 %): its rewards there are arbitrary; let its teacher judge" in page
    table.assign(**{"audit_column/drift": [float("nan"), 0.02, 0.05, float("nan")]}).to_csv(folder.table, index=False)
    page = write_report(folder.path).read_text(encoding="utf-8")
    assert "In 0 of 2 audited trials" in page
    assert "let its teacher judge" not in page


def test_the_summary_for_each_model_size_is_in_it(folder: SweepFolder) -> None:
    assert "Over-optimisation by model" not in write_report(folder.path).read_text(encoding="utf-8")
    table = "model,parameters_millions,trials_with_alarm\nembedded/tiny,0.145,2\n"
    (folder.path / "figures" / "overoptimisation_by_model.csv").write_text(table)
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    for part in ("Over-optimisation by model", "trials with alarm", "0.145"):
        assert part in page.text


def test_measures_from_before_training_are_in_it(folder: SweepFolder) -> None:
    assert "Rewards before training" not in write_report(folder.path).read_text(encoding="utf-8")
    folder.epic.write_text("model,prompt,roc_auc,undefined\nembedded/tiny,NA,,roc_auc: the truth is not yes or no\n")
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    for part in ("Rewards before training", "ROC AUC", "NA", "roc_auc: the truth is not yes or no"):
        assert part in page.text


def cells_under(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, its head first."""
    table = page.partition(f"<h2>{heading}</h2>")[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]


def test_numbers_of_a_column_have_as_many_decimals(folder: SweepFolder) -> None:
    head, *rows = cells_under(write_report(folder.path).read_text(encoding="utf-8"), "Trials")
    column = dict(zip(head, zip(*rows, strict=True), strict=True))
    assert column["success"] == ("1.00", "0.75", "0.25", "")
    assert column["alpha"] == ("", "0.0", "0.5", "1.0")
    assert column["seed"] == ("0", "0", "0", "0")


def test_columns_that_say_nothing_are_left_out(folder: SweepFolder) -> None:
    head = cells_under(write_report(folder.path).read_text(encoding="utf-8"), "Trials")[0]
    assert "reason" in head
    assert "CLIP return" not in head, "no trial has one"
    table = pd.read_csv(folder.table)
    table.assign(reason="", clip_return=[float("nan"), 1.0, 2.0, 3.0]).to_csv(folder.table, index=False)
    head = cells_under(write_report(folder.path).read_text(encoding="utf-8"), "Trials")[0]
    assert "reason" not in head
    assert "CLIP return" in head


def test_what_prompts_and_failures_say_stays_text(folder: SweepFolder) -> None:
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.handlers == []
    for part in (IMAGE, SCRIPT, f"it said {QUOTES}"):
        assert part in page.text


def test_without_figures_and_videos_it_says_what_is_missing(folder: SweepFolder) -> None:
    for file in [*folder.path.glob("figures/*"), *folder.path.glob("trials/*/video/*")]:
        file.unlink()
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    assert "No figures have been drawn yet" in page.text
    assert "There are no videos of trials that are done." in page.text


@pytest.mark.parametrize("place", ["figures/secret.png", "trials/{}/video/episode.mp4", "trials/{}/video/episode.json"])
def test_a_link_out_of_the_folder_is_not_sent_along(folder: SweepFolder, tmp_path: Path, place: str) -> None:
    (tmp_path / "secret").write_text("secret")
    link = folder.path / place.format(PLAN.trials[1].trial_id)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="is refused"):
        write_report(folder.path)


@pytest.mark.parametrize("part", ["figures", "trials/{}/video"])
def test_nor_is_a_part_of_the_folder_that_lies_elsewhere(folder: SweepFolder, tmp_path: Path, part: str) -> None:
    place = folder.path / part.format(PLAN.trials[1].trial_id)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is refused"):
        write_report(folder.path)


def test_replaces_its_own_file_and_no_other(folder: SweepFolder, tmp_path: Path) -> None:
    assert write_report(folder.path) == write_report(folder.path)
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"mine\.html exists already"):
        write_report(folder.path, mine)
    assert mine.read_text() == "mine"


def test_says_what_is_no_sweep_or_has_not_ended(folder: SweepFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the folder of a sweep"):
        write_report(tmp_path)
    folder.table.unlink()
    with pytest.raises(UserError, match=r"has no trials\.csv yet"):
        write_report(folder.path)


def test_a_sweep_whose_models_and_environment_are_gone_is_reported(folder: SweepFolder) -> None:
    """The report needs what the sweep left, and nothing that it was made with."""
    stored = yaml.safe_load(folder.sweep_file.read_text())
    stored |= {
        "task": None,
        "env": {"id": "not_installed:Robot-v7", "episode_steps": 20},
        "models": ["ViT-B-32/gone.safetensors"],
    }
    folder.sweep_file.write_text(yaml.safe_dump(stored))
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    assert "not_installed:Robot-v7" in page.text
    assert page.tags.count("video") == 2


def test_on_a_full_disk_the_report_before_stays(folder: SweepFolder) -> None:
    report = folder.path / "report.html"
    report.write_text("before")
    with full_disk(room=200), pytest.raises(UserError, match=r"report\.html cannot be written \(File too large\)"):
        write_report(folder.path)
    assert report.read_text() == "before"
    assert not list(folder.path.glob(".unfinished-*"))


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 24, 28)")])
@pytest.mark.parametrize("width", [390, 1280])
def test_fits_phones_desktops_and_paper_in_light_and_dark(
    browser: Any, folder: SweepFolder, width: int, scheme: str, ground: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    figures = folder.path / "figures"
    for name in ("reward_landscape", "overoptimisation"):
        write_picture(np.zeros((40, 2400, 3), np.uint8), figures / f"{name}.png")
    (figures / "overoptimisation_by_model.csv").write_text(
        "model,parameters_millions,trials_with_alarm\nembedded/tiny,0.145,2\n"
    )
    page.goto(write_report(folder.path).as_uri())
    for shown in ("Its peak should be at the goal", "Over-optimisation by model", "Shaded: alarms"):
        assert page.get_by_text(shown).first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
    assert page.evaluate("Array.from(document.images).every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate(
        "Array.from(document.querySelectorAll('video')).every(video => video.poster.startsWith('data:image/jpeg'))"
    )
    seen = (page.is_visible("video"), page.is_visible("img.strip"), page.is_visible(".results .bar"))
    assert seen == (True, False, width > 640)
    page.emulate_media(media="print")
    assert (page.is_visible("video"), page.is_visible("img.strip")) == (False, True)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    assert problems == []
    context.close()
