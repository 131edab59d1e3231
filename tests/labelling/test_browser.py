"""The label page in a real, headless Chromium, served by the real command. Run by `make test-browser`."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.states import StateDataset, write_states
from vlm_rm_sweeps.labelling.scales import CLOSER, SHARE, YES_NO, Scale
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.videos import write_video

pytestmark = pytest.mark.browser
TASK = find_task("cartpole-upright")
STATES = 6


class Server:
    """`vlm-rm label FOLDER` as a process of its own."""

    def __init__(self, folder: Path, *options: str, port: int = 0, token: str = "") -> None:
        command = [
            str(Path(sys.executable).parent / "vlm-rm"),
            "label",
            str(folder),
            "--no-open",
            "--port",
            str(port),
            *options,
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"VLM_RM_LABEL_TOKEN": token}
        )
        assert self.process.stdout is not None
        found = re.search(r"http://[0-9.]+:(\d+)/\S*", self.process.stdout.readline())
        assert found is not None
        self.url, self.port = found[0], int(found[1])

    def end(self, how: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(how)
        self.process.wait(30)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StateDataset:
    return write_states(tmp_path_factory.mktemp("states") / "data", TASK, sampled_states(TASK, STATES, seed=0))


@pytest.fixture(scope="module")
def server(dataset: StateDataset) -> Iterator[Server]:
    started = Server(dataset.folder)
    yield started
    started.end()


def stored(folder: Path, rater: str, scale: Scale = YES_NO) -> list[float | None]:
    return [label.value for label in LabelStore(folder / "labels.sqlite", scale).standing(rater)]


def new_tab(context: Any, url: str, rater: str) -> Any:
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.goto(url)
    page.wait_for_selector("#start:visible, #work:visible, #done:visible")
    if page.is_visible("#start"):
        page.fill("#name", rater)
        page.press("#name", "Enter")
    return page


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    opened = browser.new_context(viewport={"width": 1280, "height": 800})
    yield opened
    opened.close()


def press(page: Any, keys: Iterable[str]) -> None:
    """Press keys, each once the page is ready for it."""
    for key in keys:
        page.wait_for_function("() => !busy")
        page.keyboard.press(key)
    page.wait_for_function("() => !busy")


def test_keys_answer_skip_and_undo(context: Any, server: Server, dataset: StateDataset) -> None:
    page = new_tab(context, server.url, "anna")
    page.wait_for_selector("#stage img")
    assert page.inner_text("#criterion") == TASK.success_criterion
    assert page.evaluate("document.querySelector('#stage img').naturalWidth") == 600
    press(page, "10s")
    assert stored(dataset.folder, "anna") == [1.0, 0.0, None]
    shown = page.get_attribute("#stage", "data-item")
    press(page, "z1")
    assert stored(dataset.folder, "anna") == [1.0, 0.0, 1.0]
    assert page.get_attribute("#stage", "data-item") == shown
    assert "3 of 6 answered" in page.inner_text("#counts")
    press(page, "zzz")
    assert stored(dataset.folder, "anna") == []
    page.click("#answers button[data-value='0']")
    page.wait_for_function("() => progress.answered === 1")
    assert stored(dataset.folder, "anna") == [0.0]


def test_a_page_that_other_machines_reach_asks_for_its_token(context: Any, dataset: StateDataset) -> None:
    server = Server(dataset.folder, "--host", "0.0.0.0")
    try:
        here = f"http://127.0.0.1:{server.port}/"
        page = context.new_page()
        page.goto(here)
        assert "This page asks for a token" in page.inner_text("body")
        page = new_tab(context, server.url.replace("0.0.0.0", "127.0.0.1"), "guest")
        assert page.url == here  # without the token
        page.wait_for_selector("#stage img")
        press(page, "1")
        assert stored(dataset.folder, "guest") == [1.0]
    finally:
        server.end()


def test_a_browser_is_known_after_a_restart_by_a_token_of_the_users_own(context: Any, dataset: StateDataset) -> None:
    own = "a-token-of-the-users-own"
    server = Server(dataset.folder, "--host", "0.0.0.0", token=own)
    address = f"http://127.0.0.1:{server.port}/"
    try:
        assert "token" not in server.url
        page = new_tab(context, f"{address}?token={own}", "known")
        press(page, "1")
    finally:
        server.end()
    server = Server(dataset.folder, "--host", "0.0.0.0", port=server.port, token=own)
    try:
        press(page, "0")
        assert stored(dataset.folder, "known") == [1.0, 0.0]
    finally:
        server.end()


def test_keys_with_modifiers_and_held_keys_answer_nothing(context: Any, server: Server, dataset: StateDataset) -> None:
    page = new_tab(context, server.url, "modifiers")
    press(page, "")
    page.keyboard.press("Control+1")
    page.keyboard.press("Alt+0")
    page.keyboard.press("x")
    assert stored(dataset.folder, "modifiers") == []
    page.keyboard.down("1")
    for _ in range(10):
        page.keyboard.down("1")  # what a key held down sends
    page.keyboard.up("1")
    press(page, "")
    assert stored(dataset.folder, "modifiers") == [1.0]


def test_a_closed_tab_loses_nothing_and_the_next_continues(context: Any, server: Server, dataset: StateDataset) -> None:
    page = new_tab(context, server.url, "closing")
    press(page, "10")
    page.keyboard.press("1")
    page.close()
    again = new_tab(context, server.url, "unused")  # the browser remembers the name
    press(again, "")
    assert again.inner_text("#rater") == "closing"
    assert stored(dataset.folder, "closing") == [1.0, 0.0, 1.0]
    assert "3 of 6 answered" in again.inner_text("#counts")


def test_two_tabs_of_one_rater_do_not_double_or_overwrite(context: Any, server: Server, dataset: StateDataset) -> None:
    first, second = new_tab(context, server.url, "tabs"), new_tab(context, server.url, "tabs")
    press(first, "1")
    press(second, "0")  # it still shows the item that the first tab has answered
    assert "You have already answered 'yes'" in second.inner_text("#message")
    assert stored(dataset.folder, "tabs") == [1.0]
    press(second, "0")
    assert stored(dataset.folder, "tabs") == [1.0, 0.0]
    assert not second.is_visible("#message")


def test_two_raters_at_once_and_their_agreement(browser: Any, server: Server, dataset: StateDataset) -> None:
    contexts = [browser.new_context() for _ in range(2)]
    pages = [new_tab(context, server.url, rater) for context, rater in zip(contexts, ("first", "second"), strict=True)]
    for keys in zip("111000", "110s00", strict=True):
        for page, key in zip(pages, keys, strict=True):
            press(page, key)
    assert stored(dataset.folder, "first") == [1, 1, 1, 0, 0, 0]
    assert stored(dataset.folder, "second") == [1, 1, 0, None, 0, 0]
    page = pages[1]
    assert "You answered 5 of 6 and skipped 1" in page.inner_text("#done")
    row = page.inner_text("#pairs tr:has-text('first, second')").split("\t")
    # 4 of 5 equal; by chance 3/5 * 2/5 + 2/5 * 3/5 = 0.48; (0.8 - 0.48) / (1 - 0.48) = 0.62.
    assert [cell.strip() for cell in row] == ["first, second", "5", "80 %", "0.62"]
    page.click("#again")
    page.wait_for_selector("#work:visible")
    press(page, "0")
    assert stored(dataset.folder, "second") == [1, 1, 0, 0, 0, 0]
    for context in contexts:
        context.close()


def test_a_server_that_died_is_reported_and_nothing_is_lost(context: Any, server: Server, dataset: StateDataset) -> None:
    own = Server(dataset.folder)
    page = new_tab(context, own.url, "outage")
    press(page, "1")
    shown = page.get_attribute("#stage", "data-item")
    own.end(signal.SIGKILL)
    press(page, "0")
    assert "Not saved: the label server does not respond" in page.inner_text("#message")
    assert page.get_attribute("#stage", "data-item") == shown
    assert stored(dataset.folder, "outage") == [1.0]
    again = Server(dataset.folder, port=own.port)
    press(page, "0")
    assert stored(dataset.folder, "outage") == [1.0, 0.0]
    assert not page.is_visible("#message")
    again.end()


def test_another_site_cannot_label(context: Any, server: Server, dataset: StateDataset, tmp_path: Path) -> None:
    """A page of another origin sends the request that needs no permission of the browser: a form's."""
    foreign = Server(_videos(tmp_path), "--criterion", "x")
    page = context.new_page()
    page.goto(foreign.url)
    item = dataset.ids[0]
    body = f'{{"rater": "stranger", "item": "{item}", "value": 1}}'
    page.evaluate(
        "([url, body]) => fetch(url, {method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain'}, body})"
        ".then(() => 'sent', () => 'blocked')",
        [f"{server.url}api/labels", body],
    )
    assert stored(dataset.folder, "stranger") == []
    foreign.end()


def _videos(folder: Path) -> Path:
    for name in ("first", "second"):
        frames = [np.full((48, 64, 3), 10 * index, np.uint8) for index in range(10)]
        write_video(frames, folder / f"{name}.mp4")
    return folder


def test_videos_play_and_are_answered_in_quarters(context: Any, tmp_path: Path) -> None:
    own = Server(_videos(tmp_path), "--task", TASK.name)
    page = new_tab(context, own.url, "anna")
    page.wait_for_selector("#stage video")
    page.wait_for_function("() => document.querySelector('#stage video').currentTime > 0.05")
    press(page, "34")
    assert stored(tmp_path, "anna", SHARE) == [75.0, 100.0]
    assert "All done" in page.inner_text("#done")
    own.end()


def test_names_of_raters_are_checked_on_the_page(context: Any, server: Server) -> None:
    page = new_tab(context, server.url, "not a name")
    page.wait_for_timeout(300)
    assert page.is_visible("#start")
    page.fill("#name", "plain.name")
    page.press("#name", "Enter")
    page.wait_for_selector("#work:visible")


def test_an_item_that_cannot_be_shown_cannot_be_answered(context: Any, tmp_path: Path) -> None:
    states = write_states(tmp_path / "data", TASK, sampled_states(TASK, 2, seed=1))
    own = Server(states.folder)
    states.image_file(0).write_bytes(states.image_file(1).read_bytes())  # another state's picture
    page = new_tab(context, own.url, "blind")
    press(page, "11s1")
    given = {label.item: label.value for label in LabelStore(states.labels_file, YES_NO).standing("blind")}
    assert given[states.ids[1]] is not None
    assert given.get(states.ids[0]) is None
    own.end()


def test_the_page_keeps_working_without_the_agreement(context: Any, server: Server, dataset: StateDataset) -> None:
    page = new_tab(context, server.url, "disagreed")
    page.route("**/api/agreement", lambda route: route.abort())
    press(page, "111111")
    assert "All done" in page.inner_text("#done")
    assert "agreement between raters cannot be shown" in page.inner_text("#message")
    press(page, "z")
    assert len(stored(dataset.folder, "disagreed")) == STATES - 1


def test_arrow_keys_compare_two_states(context: Any, dataset: StateDataset) -> None:
    own = Server(dataset.folder, "--pairs")
    try:
        page = new_tab(context, own.url, "comparing")
        press(page, "")
        assert page.evaluate("document.querySelectorAll('#stage img').length") == 2
        left, right = (box["x"] for box in (view.bounding_box() for view in page.query_selector_all("#stage img")))
        assert left < right
        press(page, ["ArrowLeft", "ArrowDown", "ArrowRight", "s", "z"])
        labels = LabelStore(dataset.pairs_file, CLOSER).standing("comparing")
        assert [label.value for label in labels] == [1.0, 0.5, 0.0]
    finally:
        own.end()
