"""The Hugging Face Hub: asked where it answers, and only its cache where it does not."""

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from vlm_rm_sweeps.errors import UserError, reason_of

Arguments = ParamSpec("Arguments")
Fetched = TypeVar("Fetched")
HUB_PREFIX = "hf-hub:"
"""How open_clip names models that are described in a repository."""
_SECONDS_TO_ANSWER = 5.0
_REPOSITORY = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)


class NotFetchedError(Exception):
    """Something could not be had from the Hub or its cache, or not be made of what was had; the message is the reason."""


def repository_of(model_id: str) -> str:
    """Return the repository that a model id names.

    Args:
        model_id: It begins with `HUB_PREFIX`.

    Returns:
        For example `org/name`.

    Raises:
        UserError: No repository can have this name.
    """
    repository = model_id.removeprefix(HUB_PREFIX)
    if _REPOSITORY.fullmatch(repository) is None:
        raise UserError(f"model {model_id!r}: expected a repository of the Hugging Face Hub, as in '{HUB_PREFIX}org/name'")
    return repository


def refuse_unfetched(model_id: str) -> None:
    """Refuse a repository that is named by data, unless the user has fetched it earlier: data do not decide where to connect.

    Args:
        model_id: It begins with `HUB_PREFIX`.

    Raises:
        UserError: There is nothing of the repository in the Hub's cache.
    """
    repository = repository_of(model_id)
    if not (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")).is_dir():
        raise UserError(
            f"model {model_id!r} is named by data, for which nothing is downloaded: if you trust {repository}, fetch it first with "
            f"`hf download {repository}`"
        )


def fetch(get: Callable[Arguments, Fetched], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Fetched:
    """Call a function that may download from the Hub, without its waiting for a Hub that does not answer.

    The Hub's client repeats what fails, for minutes in all. Where nothing answers, it is told that it is offline: then it reads its
    cache, and fails at once for what is not there.

    Args:
        get: The function.
        *args: Its arguments.
        **kwargs: Its arguments by name.

    Returns:
        What it returns.

    Raises:
        NotFetchedError: It raised anything but a UserError.
    """
    offline = constants.HF_HUB_OFFLINE
    unreachable = not offline and not answers()
    constants.HF_HUB_OFFLINE = offline or unreachable
    try:
        return get(*args, **kwargs)
    except UserError:
        raise
    except Exception as error:  # whatever the Hub's client, transformers and open_clip raise
        nobody = f"{constants.ENDPOINT} does not answer, and there is no copy of it in the cache: " if unreachable else ""
        raise NotFetchedError(nobody + reason_of(error)) from error
    finally:
        constants.HF_HUB_OFFLINE = offline


def answers() -> bool:
    """Whether the Hub accepts a connection; a proxy is taken at its word."""
    if {"http", "https", "all"} & getproxies().keys():
        return True
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    connected = Event()

    def connect() -> None:
        with suppress(OSError), socket.create_connection((address.hostname or "", port), timeout=_SECONDS_TO_ANSWER):
            connected.set()

    # In a thread, because looking up a name has no time limit of its own.
    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_SECONDS_TO_ANSWER)
    return connected.is_set()
