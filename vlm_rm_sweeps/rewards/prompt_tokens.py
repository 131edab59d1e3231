"""Tokens of a prompt, as open_clip's tokenizers count them."""

from typing import Any


def count_tokens(tokenizer: Any, prompt: str) -> int:
    """Count the tokens of a prompt, with those that mark its start and end, before anything is cut off.

    A tokenizer cuts what is too long silently, and some pad with the token that ends a prompt: what it returns does not tell.

    Args:
        tokenizer: One of open_clip's: its own byte-pair encoding, or the wrapper of one of transformers.
        prompt: Any text.

    Returns:
        The number of tokens; a model reads all of them if they are not more than the tokenizer's `context_length`.
    """
    if (of_transformers := getattr(tokenizer, "tokenizer", None)) is None:
        return len(tokenizer.encode(prompt)) + _START_AND_END
    adds_its_own = tokenizer.tokenizer_mode == "clips"
    encoded = of_transformers(tokenizer.clean_fn(prompt), add_special_tokens=not adds_its_own, verbose=False)
    return len(encoded.input_ids) + (_START_END_AND_CLASS if adds_its_own else 0)


_START_AND_END = 2
_START_END_AND_CLASS = 3
