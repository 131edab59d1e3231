"""What a rater can answer: yes or no for a state, the share of time in the goal for a video."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One answer: the key that gives it, what the page says, and the value that is stored."""

    key: str
    text: str
    value: float


@dataclass(frozen=True)
class Scale:
    """The answers to one question. A label file holds answers of one scale only."""

    name: str
    answers: tuple[Answer, ...]

    def answer(self, value: float) -> Answer | None:
        """The answer with this value, None if there is none."""
        return next((answer for answer in self.answers if answer.value == value), None)


YES_NO = Scale("yes-no", (Answer("1", "yes", 1.0), Answer("0", "no", 0.0)))
SHARE = Scale(
    "share", tuple(Answer(str(index), f"{percent} %", float(percent)) for index, percent in enumerate((0, 25, 50, 75, 100)))
)
"""The share of a trajectory's time that it spends in the goal, in the paper's five steps."""
