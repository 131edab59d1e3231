"""Judges behind an endpoint: what is asked, what comes of each answer, and that the key is nowhere."""

import base64
import io
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Answer, ChatServer, chat_server, says, yes
from PIL import Image

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import CACHE
from vlm_rm_sweeps.rewards.openai_endpoint import API_KEY, BASE_URL, Endpoint, Limits, Pace
from vlm_rm_sweeps.rewards.openai_model import OpenAiRewardModel
from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.rewards.reward_model import JudgeUnavailableError, RewardSpec

KEY = "sk-never-to-be-seen-0123456789"
SPEC = RewardSpec(("a pole upright",), ("a pole",))
FRAMES = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
QUICK = Limits(per_minute=1e9, first_wait_s=0.0)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(API_KEY, KEY)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))


@pytest.fixture
def asked_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[ChatServer], OpenAiRewardModel]:
    def model(server: ChatServer, limits: Limits = QUICK) -> OpenAiRewardModel:
        monkeypatch.setenv(BASE_URL, server.url)
        made = find_reward_model("openai/small-vlm", judging=True)
        assert isinstance(made, OpenAiRewardModel)
        made.limits = limits
        made.check(SPEC)
        made.load()
        return made

    return model


def test_the_reward_is_the_probability_of_yes_against_no(asked_of: Any) -> None:
    with chat_server(lambda body, number: yes([0.75, 0.25][number])) as server:
        rewards = asked_of(server).score(FRAMES, [SPEC])
    np.testing.assert_allclose(rewards, [[0.75], [0.25]], atol=1e-6)
    body = server.asked[0]
    assert body["model"] == "small-vlm"
    question, image = body["messages"][0]["content"]
    assert "a pole upright" in question["text"]
    sent = Image.open(io.BytesIO(base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))))
    np.testing.assert_array_equal(np.asarray(sent), FRAMES[0])
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_several_goals_are_averaged_and_specs_share_their_questions(asked_of: Any) -> None:
    def answer(body: dict[str, Any], number: int) -> Answer:
        return yes(0.9 if "upright" in body["messages"][0]["content"][0]["text"] else 0.1)

    both = RewardSpec(("a pole upright", "a balanced pole"), ("a pole",), 0.5)
    with chat_server(answer) as server:
        rewards = asked_of(server).score(FRAMES[:1], [SPEC, both])
    np.testing.assert_allclose(rewards, [[0.9, 0.5]], atol=1e-6)
    assert len(server.asked) == 2


@pytest.mark.parametrize("refusal", [says("Yes"), (400, {"error": "logprobs is not supported"})])
def test_without_probabilities_a_number_is_asked_for(asked_of: Any, refusal: Answer) -> None:
    with chat_server(lambda body, number: refusal if "logprobs" in body else says("0.3")) as server:
        assert asked_of(server).score(FRAMES, [SPEC])[:, 0].tolist() == pytest.approx([0.3, 0.3])
    assert ["logprobs" in body for body in server.asked] == [True, False, False]


def test_progress_is_another_question_with_answers_of_its_own(asked_of: Any) -> None:
    def answer(body: dict[str, Any], number: int) -> Answer:
        return says("0.4") if "How far towards" in body["messages"][0]["content"][0]["text"] else yes(0.9)

    with chat_server(answer) as server:
        likely = asked_of(server).score(FRAMES[:1], [SPEC])
        model = find_reward_model("openai/small-vlm#progress", judging=True)
        for _ in range(2):  # the second one is kept
            assert model.score(FRAMES[:1], [SPEC]).item() == pytest.approx(0.4)
    assert likely.item() == pytest.approx(0.9)
    assert [body["model"] for body in server.asked] == ["small-vlm", "small-vlm"]
    assert "logprobs" not in server.asked[1]


def test_parameters_that_the_endpoint_refuses_by_name_are_left_out(asked_of: Any) -> None:
    def answer(body: dict[str, Any], number: int) -> Answer:
        refused = [name for name in ("max_tokens", "temperature", "logprobs") if name in body]
        return (400, {"error": f"Unsupported parameter: {refused[0]!r}"}) if refused else says("0.3")

    with chat_server(answer) as server:
        assert asked_of(server).score(FRAMES, [SPEC])[:, 0].tolist() == pytest.approx([0.3, 0.3])
    assert len(server.asked) == 5  # three refusals, and one answer for each frame


def test_the_endpoint_is_asked_again_when_it_says(asked_of: Any) -> None:
    waits: list[float] = []
    later: list[Answer] = [
        (429, "slowly", {"Retry-After": "7"}),
        (503, "busy", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    ]
    with chat_server(lambda body, number: later[number] if number < 2 else yes(0.5)) as server:
        asked_of(server)
        endpoint = Endpoint(Limits(per_minute=1e9, first_wait_s=2), waits.append)
        assert endpoint.ask({})["choices"]
    assert waits == [7, 4]
    with chat_server(lambda body, number: (429, "slowly", {"Retry-After": "5000"})) as server:
        message = r"is to be asked again in 5,000 s \(status 429: slowly\), which is longer than a request may take"
        with pytest.raises(JudgeUnavailableError, match=message):
            asked_of(server).score(FRAMES, [SPEC])
    assert len(server.asked) == 1


def test_each_answer_is_asked_for_once(asked_of: Any, tmp_path: Path) -> None:
    with chat_server(lambda body, number: yes(0.6)) as server:
        first = asked_of(server).score(FRAMES, [SPEC])
        np.testing.assert_array_equal(asked_of(server).score(FRAMES, [SPEC]), first)
        assert len(server.asked) == 2
        stored = sorted((tmp_path / "cache").rglob("*.json"))
        stored[0].write_text("not JSON")
        np.testing.assert_array_equal(asked_of(server).score(FRAMES, [SPEC]), first)
    assert len(stored) == 2
    assert len(server.asked) == 3


def test_answers_in_numbers_and_in_probabilities_are_kept_apart(asked_of: Any) -> None:
    """A server that learns to give probabilities: the number that it said before is not taken for one."""
    with chat_server(lambda body, number: says("0.2") if number < 2 else yes(0.9)) as server:
        assert asked_of(server).score(FRAMES[:1], [SPEC]).item() == pytest.approx(0.2)
        assert asked_of(server).score(FRAMES[:1], [SPEC]).item() == pytest.approx(0.9)


def test_what_passes_is_tried_again(asked_of: Any) -> None:
    with chat_server(lambda body, number: (503, "busy") if number < 2 else yes(0.5)) as server:
        assert asked_of(server).score(FRAMES[:1], [SPEC]).item() == pytest.approx(0.5)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("answer", "message", "requests"),
    [
        pytest.param((500, f"broken {KEY}"), r"no answer in 3 tries \(status 500: broken \*\*\*\)", 3, id="broken"),
        pytest.param((401, f"wrong key {KEY}"), r"refuses the request \(status 401: wrong key \*\*\*\)", 1, id="key"),
        pytest.param((307, ""), "refuses the request .status 307", 1, id="redirected"),
        pytest.param((200, f"<html>{KEY}"), r"answered b'<html>\*\*\*': expected JSON", 1, id="a page"),
        pytest.param((200, "[" * 100_000), r"answered b'\[+\.\.\.: expected JSON", 1, id="brackets"),
        pytest.param(says(KEY), r"answered '\*\*\*': expected yes or no", 2, id="key as answer"),
        pytest.param(says("." * 70 + KEY), r"answered '\.{70}\*\*\*': expected yes or no", 2, id="key that is cut"),
        pytest.param((200, {"object": "list"}), "answered {'object': 'list'}: expected yes or no", 1, id="another API"),
        pytest.param(says("It is a cat."), "answered 'It is a cat.': expected yes or no", 2, id="a sentence"),
        pytest.param(says("7"), "answered '7': expected .* a number from 0 to 1", 2, id="another scale"),
        pytest.param(says("nan"), "answered 'nan': expected", 2, id="no number"),
    ],
)
def test_one_message_for_an_endpoint_that_cannot_judge(asked_of: Any, answer: Answer, message: str, requests: int) -> None:
    with chat_server(lambda body, number: answer) as server, pytest.raises(JudgeUnavailableError, match=message) as caught:
        asked_of(server).score(FRAMES[:1], [SPEC])
    assert len(server.asked) == requests
    assert KEY not in str(caught.value)


def test_one_message_for_an_endpoint_that_is_down_or_slow(asked_of: Any) -> None:
    with chat_server(lambda body, number: yes(0.5)) as server:
        pass
    with pytest.raises(JudgeUnavailableError, match=r"no answer in 3 tries .URLError.*refused.*is the endpoint up"):
        asked_of(server).score(FRAMES[:1], [SPEC])
    ended = threading.Event()

    def slow(body: dict[str, Any], number: int) -> Answer:
        ended.wait(60)
        return yes(0.5)

    with chat_server(slow) as server:
        try:
            with pytest.raises(JudgeUnavailableError, match=r"no answer in 1 tries .*time"):
                asked_of(server, Limits(per_minute=1e9, tries=1, timeout_s=0.1)).score(FRAMES[:1], [SPEC])
        finally:
            ended.set()


def test_the_budget_and_the_time_have_an_end_and_answers_are_kept(asked_of: Any) -> None:
    with chat_server(lambda body, number: yes(0.5)) as server:
        with pytest.raises(JudgeUnavailableError, match=r"budget of 1 requests .* is used up: VLM_RM_OPENAI_REQUESTS"):
            asked_of(server, Limits(requests=1, per_minute=1e9)).score(FRAMES, [SPEC])
        assert asked_of(server, Limits(requests=1, per_minute=1e9)).score(FRAMES, [SPEC]).shape == (2, 1)
        with pytest.raises(JudgeUnavailableError, match="0 of 2 frames were judged in -1 s"):
            asked_of(server, Limits(seconds=-1)).score(FRAMES, [SPEC])
    assert len(server.asked) == 2


def test_requests_are_spread_over_a_minute() -> None:
    clock, waits = [100.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    pace = Pace(30, lambda: clock[0], sleep)
    for passed in (0.0, 0.5, 5.0, 0.0):
        clock[0] += passed
        pace.wait()
    assert waits == [1.5, 2.0]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (API_KEY, "", "OPENAI_API_KEY is not set"),
        (API_KEY, f"{KEY}\nX: y", "OPENAI_API_KEY cannot be used"),
        (BASE_URL, "localhost:8000", "OPENAI_BASE_URL cannot be used"),
        (BASE_URL, f"http://me:{KEY}@127.0.0.1/v1", "OPENAI_BASE_URL cannot be used"),
        ("VLM_RM_OPENAI_REQUESTS", "many", "VLM_RM_OPENAI_REQUESTS is 'many': expected a number above 0"),
    ],
)
def test_the_environment_is_checked_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.delenv(BASE_URL, raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=message) as caught:
        find_reward_model("openai/small-vlm", judging=True).check(SPEC)
    assert KEY not in str(caught.value)


def test_it_only_judges() -> None:
    with pytest.raises(UserError, match=r"openai/small-vlm only judges: expected it in `audit.models`.*--judge"):
        find_reward_model("openai/small-vlm")
    for nameless in ("openai", "openai/#progress", "openai/vlm#"):
        with pytest.raises(UserError, match="expected `openai/MODEL`"):
            find_reward_model(nameless)
    with pytest.raises(UserError, match="ViT-B-32/openai"):
        find_reward_model("openai/clip-vit-base-patch32")


def test_the_key_is_neither_pickled_nor_stored(asked_of: Any, tmp_path: Path) -> None:
    with chat_server(lambda body, number: yes(0.5)) as server:
        model = asked_of(server)
        model.score(FRAMES, [SPEC])
    copy = pickle.dumps(model)
    assert KEY.encode() not in copy
    assert pickle.loads(copy).limits == QUICK
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert written
    assert not any(KEY.encode() in file.read_bytes() for file in written)
