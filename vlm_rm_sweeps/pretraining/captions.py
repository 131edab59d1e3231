"""Captions for rendered states: a small grammar, label noise that shapes the reward landscape, and foils.

A contrastive model learns `similarity(image, text) ~ log p(text | image) - log p(text)`. If captions described the exact state,
the reward for "upright" would be flat wherever no caption says "upright", and an agent could not climb towards the goal.
Captions therefore describe a *neighbour* of the state, drawn with Laplace noise of one scale. Then `log p("upright" | angle)`
falls linearly with the angle over the whole circle.

A word that occurs with one kind of state only makes the whole text unnecessary: "straight" would mean "upright". So each word of
direction, degree and negation occurs with many states, in combinations that only the whole text resolves ("straight up",
"straight down", "not straight up"), and half of the captions have a foil: much the same words, which say something else.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from vlm_rm_sweeps.pretraining.held_out_prompts import TEST
from vlm_rm_sweeps.tasks.registry import BUILT_IN_TASKS, find_task

_SHORT_PREDICATE = 3
"""Words: a shorter predicate, such as "kneeling" or "standing up", is held out with its subject only."""


def _held_out(goal: str, baseline: str) -> str:
    """Cut the subject, which goal and baseline share, off a goal prompt; keep its noun where little is left."""
    words, others = goal.split(), baseline.split()
    shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(words, others, strict=False))))
    predicate = words[shared:]
    return " ".join(predicate if len(predicate) >= _SHORT_PREDICATE else words[1:])


_TASKS = [find_task(name) for name in BUILT_IN_TASKS]
HELD_OUT_TEXTS = frozenset(_held_out(task.goal_prompt, task.baseline_prompt) for task in _TASKS)
"""The goal prompts of all tasks, without their subject. No caption contains one, so evaluation with the prompts measures
generalisation."""
_TEST_PROMPTS = frozenset(text for prompts in TEST.values() for text in (*prompts.paraphrases, *prompts.opposites))
_BASELINES = frozenset(task.baseline_prompt for task in _TASKS)

Option = TypeVar("Option")
Buckets = tuple[tuple[float, tuple[str, ...]], ...]
"""Wordings by the value of one quantity: pairs of upper limit and wordings, rising; the last pair also covers larger values."""


class CaptionedState(Protocol):
    """A state of an environment that can describe itself."""

    def caption(self, rng: np.random.Generator) -> str:
        """Draw one of the state's many captions.

        Args:
            rng: Draws the neighbouring state, the level of detail and the wording.

        Returns:
            A short text in lower case.
        """

    def foil(self, rng: np.random.Generator) -> "CaptionedState":
        """Draw a state that differs clearly in one attribute.

        Args:
            rng: Draws the attribute and its value.

        Returns:
            The other state. Its caption from the same generator is a hard negative of this state's.
        """


def pick(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """Draw one option, all equally likely.

    Args:
        rng: Used for one draw.
        options: At least one.

    Returns:
        One of them.
    """
    return options[int(rng.integers(len(options)))]


_INNERMOST = re.compile(r"\{([^{}]*)\}")


def expand(rng: np.random.Generator, template: str, words: Mapping[str, str]) -> str:
    """Expand a template: `{side}` is replaced by the text of that name, `{a|b|}` by one of its options.

    Args:
        rng: Draws the options.
        template: May nest, as in "{|almost |{far|near} to }upright".
        words: Templates by name.

    Returns:
        The text, without double spaces.
    """

    def replace(match: re.Match[str]) -> str:
        content = match[1]
        return words[content] if content in words else pick(rng, content.split("|"))

    while True:
        template, count = _INNERMOST.subn(replace, template)
        if not count:
            return " ".join(template.split()).replace(" ,", ",")


def bucket_of(buckets: Buckets, value: float) -> int:
    """Find the bucket of a value.

    Args:
        buckets: Wordings by upper limit.
        value: Any number.

    Returns:
        Index of the first bucket whose limit is not below the value, or of the last bucket.
    """
    return next((index for index, (limit, _) in enumerate(buckets) if value <= limit), len(buckets) - 1)


def far_bucket(rng: np.random.Generator, buckets: Buckets, value: float) -> tuple[str, ...]:
    """Draw a bucket that a value is clearly outside of: neither its own nor a neighbour.

    Args:
        rng: Draws the bucket.
        buckets: Wordings by upper limit, at least four.
        value: Any number.

    Returns:
        The wordings of the bucket. They are false for the value, except those that a larger one exceeds: a trunk that is "bent far" is
        also "bent".
    """
    own = bucket_of(buckets, value)
    return buckets[int(rng.choice([index for index in range(len(buckets)) if abs(index - own) > 1]))][1]


NEGATIONS = (
    "{subject} {is |}not {false}",
    "{subject} is not {false}",
    "{subject} {is |}not {false} but {true}",
    "{subject} is not {false}, it is {true}",
    "{subject} {is |}{true}, {|and }not {false}",
    "{subject} {is |}{true} {instead of|rather than} {false}",
)
"""What is false, alone or beside what is true."""

_PRESENT = 0.4
"""Share of the captions that use the simple present, "stands" or "does not stand", where they could say "standing"."""
_FOILED = 0.5
"""Share of the captions that have a foil. More would cost more than they teach: they are texts without an image."""
_DENIED = 0.4
"""Share of the foils that deny what the caption says, or say what it denies; the others describe another state."""
_FOIL_TRIES = 3

_REGULAR = re.findall(
    r"\w+", "stand kneel walk rest hold lift bend lean bow fall point hang climb crawl stoop jump swing droop spread"
)
_SILENT_E = re.findall(r"\w+", "rais balanc dangl driv meditat practic strid")
_VERBS = {
    **{f"{verb}ing": (f"{verb}s", verb) for verb in _REGULAR},
    **{f"{stem}ing": (f"{stem}es", f"{stem}e") for stem in _SILENT_E},
    "crouching": ("crouches", "crouch"),
    "reaching": ("reaches", "reach"),
    "sitting": ("sits", "sit"),
    "squatting": ("squats", "squat"),
    "lying": ("lies", "lie"),
}
"""By participle, the forms of "it stands" and "it does not stand"."""
_NOUN = "(?:humanoid robot|robot|humanoid|pole|cart|car|vehicle)"
_SUBJECT = re.compile(rf"^((?:[a-z-]+ ){{0,4}}?{_NOUN})( is)? (not )?(?!with\b|and\b|has\b)(.+)$")
"""A caption's subject, "is", "not", and what it says of the subject."""


def in_present_tense(caption: str) -> str:
    """Turn "a robot (is) standing" into "a robot stands", and "a robot (is) not standing" into "a robot does not stand".

    Args:
        caption: A caption.

    Returns:
        The caption in the simple present, unchanged if its subject is not followed by a participle.
    """
    found = _SUBJECT.match(caption)
    verb, _, rest = found[4].partition(" ") if found else ("", "", "")
    comma = "," if verb.endswith(",") else ""
    if not found or verb.rstrip(",") not in _VERBS:
        return caption
    present, infinitive = _VERBS[verb.rstrip(",")]
    return f"{found[1]} {f'does not {infinitive}' if found[3] else present}{comma} {rest}".rstrip()


def denied(caption: str) -> str | None:
    """Deny what a caption says, in its own words: without its first "not", or with one behind the subject.

    Args:
        caption: A caption.

    Returns:
        A text that is false where the caption is true; None if there is no place for "not".
    """
    if " not " in caption:
        return caption.replace(" not ", " ", 1)
    if " has " in caption:
        return caption.replace(" has ", " has not ", 1)
    found = _SUBJECT.match(caption)
    return f"{found[1]}{found[2] or ''} not {found[4]}" if found else None


def caption_batch(states: Sequence[CaptionedState], rng: np.random.Generator) -> list[str]:
    """Draw a caption for each state.

    Args:
        states: N states.
        rng: Shared by all captions.

    Returns:
        N captions, none of which contains one of `HELD_OUT_TEXTS` or is a task's baseline.
    """
    return contrast_batch(states, rng)[0]


def contrast_batch(states: Sequence[CaptionedState], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Draw a caption and a foil for each state: a text of much the same words that is false of the state.

    Args:
        states: N states.
        rng: Shared by all captions.

    Returns:
        N captions and N foils; a foil equals its caption where there is none.
    """
    captions, foils = [], []
    for state in states:
        caption = None
        while caption is None:
            seed, present = int(rng.integers(2**63)), rng.random() < _PRESENT
            plain = state.caption(np.random.default_rng(seed))
            caption = _allowed(plain, present)
        captions.append(caption)
        foil = None
        if rng.random() < _FOILED:
            foil = _allowed(denied(plain), present) if " not " in plain or rng.random() < _DENIED else None
            foil = foil or _foil_of_another_state(state, seed, present, caption, rng)
        foils.append(foil or caption)
    return captions, foils


def _foil_of_another_state(
    state: CaptionedState, seed: int, present: bool, caption: str, rng: np.random.Generator
) -> str | None:
    """Describe a state that differs in one attribute as `caption` describes `state`."""
    for _ in range(_FOIL_TRIES):
        foil = state.foil(rng).caption(np.random.default_rng(seed))
        # What the other state is not, this one may not be either.
        if " not " not in foil and (allowed := _allowed(foil, present)) and allowed != caption:
            return allowed
    return None


def _allowed(text: str | None, present: bool) -> str | None:
    """Bring a text into its final form; None if no caption may be like this."""
    if text is None:
        return None
    text = in_present_tense(text) if present else text
    return None if is_held_out(text) else text


def is_held_out(caption: str) -> bool:
    """Whether a caption contains a task's goal prompt or a prompt of the test set, or is a task's baseline."""
    return caption in _BASELINES or any(text in caption for text in itertools.chain(HELD_OUT_TEXTS, _TEST_PROMPTS))
