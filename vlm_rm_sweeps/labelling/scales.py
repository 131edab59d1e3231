"""Scales of answers: yes or no for a state, the closer one of two states, the share of time in the goal for a video."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One possible answer.

    Attributes:
        key: Key of the keyboard that gives it, as browsers name it, in small letters.
        text: What the page shows.
        value: What is stored.
    """

    key: str
    text: str
    value: float


@dataclass(frozen=True)
class Scale:
    """All possible answers to one question. A label file holds answers of one scale only.

    Attributes:
        name: Stored in the label file.
        answers: In the order of the page.
    """

    name: str
    answers: tuple[Answer, ...]

    def answer(self, value: float) -> Answer | None:
        """Find the answer with a value; None if there is none."""
        return next((answer for answer in self.answers if answer.value == value), None)


YES_NO = Scale("yes-no", (Answer("1", "yes", 1.0), Answer("0", "no", 0.0)))
CLOSER = Scale(
    "closer", (Answer("arrowleft", "left", 1.0), Answer("arrowdown", "the same", 0.5), Answer("arrowright", "right", 0.0))
)
"""Which of two states is closer to the goal: how far that is the left one."""
SHARE = Scale(
    "share", tuple(Answer(str(index), f"{percent} %", float(percent)) for index, percent in enumerate((0, 25, 50, 75, 100)))
)
"""The share of an episode's time spent in the goal, in the five steps of the paper."""
