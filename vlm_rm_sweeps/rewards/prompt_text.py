"""Texts that describe images, as users write them."""

import unicodedata
from typing import Any

from vlm_rm_sweeps.errors import UserError, shown


def visible_text(text: str) -> str:
    """Return a text without the characters that nobody sees: control and format characters, and spaces around the rest."""
    return "".join(letter for letter in text if unicodedata.category(letter) not in ("Cc", "Cf") or letter.isspace()).strip()


def check_texts(name: str, value: Any) -> tuple[str, ...]:
    """Check a sentence or a list of sentences that a sweep file or a program gives.

    Args:
        name: What they are, for messages.
        value: Anything.

    Returns:
        The sentences.

    Raises:
        UserError: They are no sentences, one of them is empty, or one stands there twice.
    """
    texts = (value,) if isinstance(value, str) else value
    if not (isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)):
        raise UserError("expected a sentence, or a list of sentences; a number needs quotes")
    if not all(map(visible_text, texts)):
        raise UserError(f"{name} {shown(list(texts))}: expected none of them to be empty")
    repeated = [text for text in texts if texts.count(text) > 1]
    if repeated:
        raise UserError(f"{name}: {repeated[0]!r} stands there {texts.count(repeated[0])} times: expected each sentence once")
    return tuple(texts)
