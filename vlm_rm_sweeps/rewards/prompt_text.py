"""Texts that describe images, as users write them."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from vlm_rm_sweeps.errors import UserError, shown

_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""What nobody sees, though it is no control or format character: the rest of Default_Ignorable_Code_Point (Unicode 16,
DerivedCoreProperties.txt), and the Braille pattern without dots."""
_PARTS = re.compile(
    "(?<=[0-9#*\u0080-\ufdff\ufe10-\U000e00ff])[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
    "|(?<=[^\x00-\x7f\u200c\u200d])[\u200c\u200d](?=[^\x00-\x7f\u200c\u200d])"
    "|(?<=\U0001f3f4)[\U000e0020-\U000e007e]+\U000e007f"
)
"""Unseen characters that shape the visible ones beside them: variation selectors, joiners between emoji or between letters that are
not ASCII, and the tags of a region's flag."""
_LETTERS_AROUND = 30


def visible_text(text: str) -> str:
    """Return a text without the characters that nobody sees, and without spaces around the rest."""
    return text.strip() if _is_plain(text) else "".join(letter for letter in text if not _is_unseen(letter)).strip()


def _is_plain(text: str) -> bool:
    """Whether a text has only what is on a keyboard, as nearly all prompts have: to look at each letter takes ten times as long."""
    return text.isascii() and text.isprintable()


def _is_unseen(letter: str) -> bool:
    if letter.isspace():
        return False
    return unicodedata.category(letter) in ("Cc", "Cf") or _UNSEEN.match(letter) is not None


def check_visible(name: str, texts: Iterable[str]) -> None:
    """Refuse sentences of which nobody sees all that a model reads.

    Args:
        name: What they are, for messages.
        texts: The sentences.

    Raises:
        UserError: There is none, or one of them is empty or has an invisible character that belongs to no emoji or letter.
    """
    listed = list(texts)
    if not listed or not all(map(visible_text, listed)):
        raise UserError(f"{name} {shown(listed)}: expected at least one, and none of them empty")
    for text in listed:
        if _is_plain(text):
            continue
        alone = _PARTS.sub(lambda part: "x" * len(part[0]), text)
        place = next((place for place, letter in enumerate(alone) if _is_unseen(letter)), None)
        if place is not None:
            around = text[max(0, place - _LETTERS_AROUND) : place + _LETTERS_AROUND]
            raise UserError(
                f"{name}: '{''.join(map(_escaped, around))}' has the invisible character U+{ord(text[place]):04X} (character "
                f"{place + 1} of {len(text)}), which a model would read: delete it, or type the sentence anew"
            )


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() and not _is_unseen(letter) else ascii(letter)[1:-1]


def check_texts(name: str, value: Any) -> tuple[str, ...]:
    """Check a sentence or a list of sentences that a sweep file or a program gives.

    Args:
        name: What they are, for messages.
        value: Anything.

    Returns:
        The sentences.

    Raises:
        UserError: They are no sentences, one of them is empty or has an invisible character, or one stands there twice.
    """
    texts = (value,) if isinstance(value, str) else value
    if not (isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)):
        raise UserError("expected a sentence, or a list of sentences; a number needs quotes")
    check_visible(name, texts)
    repeated = [text for text in texts if texts.count(text) > 1]
    if repeated:
        raise UserError(f"{name}: {repeated[0]!r} stands there {texts.count(repeated[0])} times: expected each sentence once")
    return tuple(texts)
