"""Vision-language models behind an endpoint as judges: whether an image shows the goal, or how far it is towards it."""

import base64
import hashlib
import io
import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import user_cache, write_whole
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.openai_endpoint import Endpoint, Limits, RefusedError, api_key, base_url, shown_answer
from vlm_rm_sweeps.rewards.reward_model import (
    BackendName,
    JudgeUnavailableError,
    Precision,
    RewardModel,
    RewardSpec,
    check_request,
)

_YES_OR_NO = "Does this image show: {goal}? Answer with one word, yes or no."
_NUMBER = "How likely does this image show: {goal}? Answer with one number from 0 (surely not) to 1 (surely), and nothing else."
_FAR = (
    "How far towards this goal is what the image shows: {goal}? Answer with one number from 0 (not at all) to 1 (the goal is reached), "
    "and nothing else."
)
_PROGRESS = "progress"
_FORM = "#"
"""Between the model and what it is asked for."""
_PARAMETERS = {"max_tokens": 8, "temperature": 0}
"""What an answer needs least; some models refuse them."""
_TOP = 20
"""Most likely first tokens that are asked for: as many as OpenAI's own endpoint gives."""


class _NoProbabilitiesError(Exception):
    """The endpoint does not tell how likely its words were."""


class OpenAiRewardModel(RewardModel):
    """A vision-language model behind an endpoint: `openai/<model>`, where the endpoint knows the model by that name.

    A frame's reward for a spec is the probability, 0 to 1, that the frame shows the goal: that of "yes" against "no" as the answer's
    first token. With s the frame, g_1 to g_m the goal prompts, and P the probabilities of first tokens when it is asked whether s shows
    g_i,

        R(s) = 1/m sum_i P(yes | s, g_i) / (P(yes | s, g_i) + P(no | s, g_i))

    Baselines and alpha are not used. An endpoint that gives no probabilities of tokens is asked for a number in the place of the
    fraction. `openai/<model>#progress` asks for another number there: how far towards the goal the frame is, 0 to 1.

    Source: arXiv 2404.01291, whose score is P(yes) itself.
    Shapes: frames s (n, h, w, 3); each g_i a sentence; R(s) (n,), from 0 to 1.

    Each answer is kept on disk, by image, question, model and endpoint. Answers are as deterministic as the endpoint.

    Args:
        model_id: `openai/<model>`, or `openai/<model>#progress`.

    Attributes:
        limits: What this process may ask of the endpoint; by default the environment says it.

    Raises:
        UserError: The id names no model, or another form of question.
    """

    judges_only = True
    frame_format = FrameFormat(224)

    def __init__(self, model_id: str) -> None:
        super().__init__(model_id)
        self._name, asks, form = model_id.partition("/")[2].partition(_FORM)
        if not self._name or (asks and form != _PROGRESS):
            raise UserError(
                f"reward model {model_id!r}: expected `openai/MODEL`, with a model that the endpoint knows, or "
                f"`openai/MODEL{_FORM}{_PROGRESS}`"
            )
        self._asks_progress = bool(asks)
        if self._name.startswith("clip-"):  # a repository of CLIP weights
            from vlm_rm_sweeps.rewards.open_clip_models import find_model

            find_model(model_id)
        self.limits: Limits | None = None
        self._endpoint: Endpoint | None = None
        self._gives_probabilities = True
        self._refused: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model_id,), {"limits": self.limits}

    def check_spec(self, spec: RewardSpec) -> None:
        """Refuse to judge without an endpoint, for any spec.

        Args:
            spec: Not used: any sentence can be asked about.

        Raises:
            UserError: The environment names no endpoint, no key, or limits that are no numbers.
        """
        base_url()
        api_key()
        Limits.from_environment()

    def use_backend(self, backend: BackendName, device: str = "cpu", precision: Precision = "fp32") -> None:
        """Accept any backend: the network runs elsewhere."""

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        """Ask for each frame and goal whether the frame shows it.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.
            specs: Goals.

        Returns:
            Probabilities, float32 (N, number of specs).

        Raises:
            JudgeUnavailableError: The endpoint does not answer in time, answers nonsense, or the budget is used up.
        """
        check_request(frames, specs)
        limits = self.limits or Limits.from_environment()
        ends = time.monotonic() + limits.seconds
        goals = list(dict.fromkeys(goal for spec in specs for goal in spec.goal_prompts))
        rewards = np.empty((len(frames), len(specs)), np.float32)
        try:
            self._endpoint = self._endpoint or Endpoint(limits)
            self._endpoint.ends = ends
            for row, frame in enumerate(frames):
                if time.monotonic() > ends:
                    raise JudgeUnavailableError(
                        f"{row} of {len(frames)} frames were judged in {limits.seconds:g} s, the longest time for a request: ask for "
                        "fewer, such as by `audit.frames`; what was answered is kept"
                    )
                found = {goal: self._probability(self._endpoint, frame, goal) for goal in goals}
                rewards[row] = [np.mean([found[goal] for goal in spec.goal_prompts]) for spec in specs]
        except JudgeUnavailableError:
            raise
        except UserError as error:  # of the environment, which may be another one in this process
            raise JudgeUnavailableError(str(error)) from None
        return rewards

    def visible(self, frames: np.ndarray) -> np.ndarray:
        """Return the frames: they are sent as they are."""
        return frames

    def _probability(self, endpoint: Endpoint, frame: np.ndarray, goal: str) -> float:
        if self._asks_progress:
            return self._known_or_asked(endpoint, frame, goal, _FAR)
        if self._gives_probabilities:
            try:
                return self._known_or_asked(endpoint, frame, goal, _YES_OR_NO)
            except _NoProbabilitiesError:
                self._gives_probabilities = False
        return self._known_or_asked(endpoint, frame, goal, _NUMBER)

    def _known_or_asked(self, endpoint: Endpoint, frame: np.ndarray, goal: str, question: str) -> float:
        """Return the answer to one form of the question, from the cache if it was ever asked."""
        place = _cached_at([endpoint.base_url, self._name, question, goal], frame)
        known = _read(place)
        if known is None:
            asked = question.format(goal=goal)
            if question == _YES_OR_NO:
                known = self._probability_of_yes(endpoint, frame, asked)
            else:
                known = self._number(self._answer(endpoint, frame, asked))
            with suppress(OSError):  # it can be asked again
                place.parent.mkdir(parents=True, exist_ok=True)
                write_whole(place, json.dumps({"probability": known}))
        return known

    def _probability_of_yes(self, endpoint: Endpoint, frame: np.ndarray, question: str) -> float:
        try:
            answer = self._answer(endpoint, frame, question, logprobs=True, top_logprobs=_TOP)
        except RefusedError as error:
            if "logprob" not in str(error):
                raise
            raise _NoProbabilitiesError from error
        if answer.logprobs is None or not answer.logprobs.content:
            raise _NoProbabilitiesError
        return self._share_of_yes(answer.logprobs.content[0])

    def _answer(self, endpoint: Endpoint, frame: np.ndarray, question: str, **options: Any) -> "_Choice":
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_png(frame)}"}}
        content = [{"type": "text", "text": question}, image]
        asked = {"model": self._name, "messages": [{"role": "user", "content": content}], **options}
        answer = self._with_parameters(endpoint, asked)
        try:
            return _Answer.model_validate(answer).choices[0]
        except ValidationError:
            raise self._nonsense(answer) from None

    def _with_parameters(self, endpoint: Endpoint, asked: dict[str, Any]) -> Any:
        """Ask with those parameters that the endpoint does not refuse by name, which it is asked about once."""
        while True:
            given = {name: value for name, value in _PARAMETERS.items() if name not in self._refused}
            try:
                return endpoint.ask(asked | given)
            except RefusedError as error:
                refused = {name for name in given if name in str(error)}
                if not refused:
                    raise
                self._refused |= refused

    def _share_of_yes(self, token: "_Place") -> float:
        chances = {"yes": 0.0, "no": 0.0}
        for each in token.top_logprobs:
            word = each.token.strip().strip(".").lower()
            if word in chances and each.logprob <= 0:
                chances[word] += math.exp(each.logprob)
        if not any(chances.values()):
            raise self._nonsense([each.token for each in token.top_logprobs[:5]])
        return chances["yes"] / sum(chances.values())

    def _number(self, answer: "_Choice") -> float:
        text = (answer.message.content or "").strip()
        try:
            value = float(text.rstrip("."))
        except ValueError:
            raise self._nonsense(text) from None
        if not 0 <= value <= 1:
            raise self._nonsense(text)
        return value

    def _nonsense(self, answer: object) -> JudgeUnavailableError:
        return JudgeUnavailableError(
            f"{self.model_id} answered {shown_answer(answer)}: expected yes or no with probabilities, or a number from 0 to 1; can it "
            "see images?"
        )


class _Token(BaseModel):
    token: str
    logprob: float = Field(allow_inf_nan=False)


class _Place(BaseModel):
    top_logprobs: list[_Token] = Field(min_length=1)


class _Logprobs(BaseModel):
    content: list[_Place] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    logprobs: _Logprobs | None = None


class _Answer(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


def _png(frame: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def cache_folder() -> Path:
    """Return the folder of the answers."""
    return user_cache() / "openai"


def _cached_at(asked: list[str], frame: np.ndarray) -> Path:
    image = hashlib.sha256(frame.tobytes()).hexdigest()
    name = hashlib.sha256(json.dumps([*asked, frame.shape, image]).encode()).hexdigest()
    return cache_folder() / name[:2] / f"{name}.json"


def _read(file: Path) -> float | None:
    """Return a stored answer; None if there is none, or it is damaged."""
    try:
        value = float(json.loads(file.read_text())["probability"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return value if 0 <= value <= 1 else None
