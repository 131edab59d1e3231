"""Where the files of a model are on a machine that has them, has others in their place, or lacks them."""

from pathlib import Path

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards import local_files
from vlm_rm_sweeps.rewards.local_files import first_path, keep_copies, local_path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a process that has no models' files yet."""
    monkeypatch.setattr(local_files, "_copies", {})
    monkeypatch.setenv("VLM_RM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that this machine does not have."""
    return tmp_path / "elsewhere"


def test_files_that_this_machine_has_stay_where_they_are(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"weights")
    keep_copies({file: b"weights"})
    assert local_path(file) == first_path(file) == file
    assert not cache.exists()


@pytest.mark.parametrize("other", [None, b"others"])
def test_files_that_it_lacks_or_has_others_of_are_copied(elsewhere: Path, cache: Path, other: bytes | None) -> None:
    if other is not None:
        elsewhere.mkdir()
        (elsewhere / "weights.pt").write_bytes(other)
    keep_copies({elsewhere / "weights.pt": b"weights", elsewhere / "config.json": b"{}"})
    copy = local_path(elsewhere / "weights.pt")
    assert copy.read_bytes() == b"weights"
    assert copy.is_relative_to(cache)
    assert local_path(elsewhere) == copy.parent
    assert first_path(copy) == elsewhere / "weights.pt"
    assert local_path(elsewhere / "neither.pt") == elsewhere / "neither.pt"


def test_a_copy_is_written_once_and_again_if_it_is_damaged(elsewhere: Path, cache: Path) -> None:
    keep_copies({elsewhere / "weights.pt": b"weights"})
    copy = local_path(elsewhere / "weights.pt")
    before = copy.stat().st_mtime_ns
    keep_copies({elsewhere / "weights.pt": b"weights"})
    assert copy.stat().st_mtime_ns == before
    copy.write_bytes(b"weight")
    keep_copies({elsewhere / "weights.pt": b"weights"})
    assert copy.read_bytes() == b"weights"


def test_files_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "weights.pt", tmp_path / "b" / "weights.pt"
    keep_copies({first: b"first", second: b"second"})
    assert [local_path(file).read_bytes() for file in (first, second)] == [b"first", b"second"]


def test_a_cache_that_cannot_be_written_is_one_message(elsewhere: Path, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        keep_copies({elsewhere / "weights.pt": b"weights"})
