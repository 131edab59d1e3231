"""The lock files: what the extras name is in one of them, with hashes."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-hf.lock")
_PIN = re.compile(r"^([a-z0-9_.-]+)\S*==([^ ;]+)", re.MULTILINE)


def pinned(lock: str) -> dict[str, str]:
    return dict(_PIN.findall((REPOSITORY / lock).read_text(encoding="utf-8")))


@pytest.mark.parametrize(("extra", "lock"), [("dev", "requirements.lock"), ("hf", "requirements-hf.lock")])
def test_what_an_extra_names_is_pinned_in_a_version_that_it_takes(extra: str, lock: str) -> None:
    project: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = pinned(lock)
    for each in map(Requirement, project["optional-dependencies"][extra]):
        assert each.specifier.contains(versions[each.name.lower()]), each


def test_no_package_is_pinned_twice() -> None:
    """What `make test-hf` puts before the packages of .venv replaces none of them."""
    first, second = map(pinned, LOCKS)
    assert not first.keys() & second.keys()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash_and_there_are_no_addresses(lock: str) -> None:
    text = (REPOSITORY / lock).read_text(encoding="utf-8")
    for pin in re.split(r"\n(?=\S+==)", text):
        assert "--hash=sha256:" in pin, pin
    assert "://" not in text
