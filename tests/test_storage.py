"""Results at an address: what is put there by one machine is fetched whole by another."""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from command_line import vlm_rm

from vlm_rm_sweeps import storage
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.storage import RemoteFolder, StoreError, place_named

Machine = Callable[[str], None]
NO_SERVER = "s3://bucket/results?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"


def everything(file: PurePosixPath) -> bool:
    return True


def written(folder: RemoteFolder, name: str, text: str) -> Path:
    file = folder.copy / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://anna:very-secret@bucket/x", r"s3://\*\*\*@bucket/x: an address has no password"),
        ("abfs://c@a.dfs.core.windows.net/x?client_secret=very-secret", r"client_secret=\*\*\*: an address has no secrets"),
        ("nope://bucket/x", "nope://bucket/x is no address of results .* one that begins with s3://, gs://"),
        ("s3://bucket/x?colour=red", r"expected none but endpoint_override, region, scheme after '\?', and not colour"),
        ("gs://bucket/x?colour=red", "Unexpected query parameter in GCS URI: 'colour'"),
        ("s3://bucket/a/../b", "without '%', '.' and '..'"),
        ("s3://bucket/a%2f", "without '%', '.' and '..'"),
        ("s3://", "names no bucket or folder"),
    ],
)
def test_addresses_that_are_refused_without_asking_anybody(address: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        place_named(address)
    assert "very-secret" not in str(refused.value)


def test_a_path_stays_a_path() -> None:
    assert place_named("results/s3") == Path("results/s3")


def test_a_path_that_no_shell_has_replaced_is_in_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    assert place_named("~/results") == Path("/home/anna/results")
    assert place_named("~other") == Path("~other")


def test_an_address_has_a_copy_of_its_own(machine: Machine) -> None:
    first = RemoteFolder.at("s3://bucket/results/")
    assert str(first / "sweep") == "s3://bucket/results/sweep"
    assert (first / "sweep").copy == first.copy / "sweep"
    assert (first / "sweep").above == first
    elsewhere = RemoteFolder.at(NO_SERVER)
    assert str(elsewhere / "sweep") == NO_SERVER.replace("results", "results/sweep")
    assert elsewhere.copy != first.copy


def test_what_one_machine_puts_another_fetches(remote: RemoteFolder, machine: Machine) -> None:
    assert remote.names() == []
    assert remote.files() == {}
    written(remote, "sweep/journal.jsonl", "a\n")
    written(remote, "sweep/trials/t/best/policy", "p")
    remote.put_folder("sweep")
    assert remote.names() == ["sweep"]
    machine("other")
    assert not remote.copy.exists()
    (remote / "sweep").fetch(lambda file: file.parts[0] != "trials", settled="trials")
    assert {file.name for file in (remote.copy / "sweep").iterdir()} == {"journal.jsonl"}
    assert (remote / "sweep/trials/t").fetch_folder("best") == remote.copy / "sweep/trials/t/best"
    assert (remote.copy / "sweep/trials/t/best/policy").read_text() == "p"


def test_a_journal_is_never_cut_short_by_an_older_one(remote: RemoteFolder, machine: Machine) -> None:
    journal = written(remote, "journal", "a\n")
    remote.put_file("journal")
    journal.write_text("a\nb\n")
    remote.fetch(everything, settled="trials", growing=["journal"])
    assert journal.read_text() == "a\nb\n"
    remote.put_file("journal")
    machine("other")
    written(remote, "journal", "a\n")
    remote.fetch(everything, settled="trials", growing=["journal"])
    assert [file.name for file in remote.copy.iterdir()] == ["journal"]
    assert (remote.copy / "journal").read_text() == "a\nb\n"
    # Both have gone on: nothing is lost.
    written(remote, "journal", "a\nc\n")
    remote.fetch(everything, settled="trials", growing=["journal"])
    (aside,) = remote.copy.glob("journal-*")
    assert (remote.copy / "journal").read_text() == "a\nb\n"
    assert aside.read_text() == "a\nc\n"


def test_a_folder_that_could_not_be_put_as_a_whole_does_not_count(
    remote: RemoteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_WAIT_S", 0.0)
    for name in ("about", "weights"):
        written(remote, f"checkpoint/{name}", "1")
    remote.put_folder("checkpoint", last="about")
    assert set(remote.files()) == {"checkpoint/about", "checkpoint/weights"}
    there = tmp_path / "store" / "results" / "checkpoint" / "weights"
    there.unlink()
    there.mkdir()  # nothing can be written in its place
    with pytest.raises(
        StoreError, match=r"file:///.*results cannot be written, and stays in .*checkpoint/weights \("
    ) as failed:
        remote.put_folder("checkpoint", last="about")
    assert str(remote.copy) in str(failed.value)
    assert "checkpoint/about" not in remote.files()


def test_a_removed_folder_is_gone_there_alone(remote: RemoteFolder) -> None:
    here = written(remote, "old/about", "1")
    remote.put_folder("old")
    for _ in range(2):  # one that is gone already is no error
        remote.remove_folder("old", first="about")
    assert remote.files() == {}
    assert here.is_file()


def test_small_files(remote: RemoteFolder) -> None:
    assert remote.read("note") is None
    remote.write("note", b"here")
    assert remote.read("note") == b"here"
    remote.remove_file("note")
    remote.remove_file("note")
    assert remote.read("note") is None
    remote.check()
    assert remote.names() == []


def test_a_store_that_speaks_s3(s3: RemoteFolder, machine: Machine) -> None:
    """All that is asked of a store, of the kind that has no folders."""
    s3.check()
    assert s3.names() == []
    for name in ("about", "weights"):
        written(s3, f"checkpoint/{name}", name * 1000)
    s3.put_folder("checkpoint", last="about")
    s3.put_folder("checkpoint", last="about")
    machine("other")
    s3.fetch_folder("checkpoint")
    assert (s3.copy / "checkpoint" / "weights").read_text() == "weights" * 1000
    s3.remove_folder("checkpoint", first="about")
    s3.remove_folder("checkpoint", first="about")
    assert s3.files() == {}
    assert s3.read("note") is None
    s3.write("note", b"here")
    assert s3.read("note") == b"here"


QUICKSTART = Path(__file__).parents[1] / "sweeps" / "quickstart.yaml"


def test_a_bucket_that_is_not_there_is_told_before_anything_starts(s3: RemoteFolder, machine: Machine) -> None:
    with pytest.raises(
        UserError, match=r"s3://nobodys/results cannot be used for results .*bucket.* does not exist"
    ) as refused:
        vlm_rm("sweep", str(QUICKSTART), "--results", "s3://nobodys/results")
    assert "only-of-the-tests" not in str(refused.value)
    assert str(refused.value).count("\n") == 1
    with pytest.raises(UserError, match=r"there is no sweep in s3://bucket/"):
        vlm_rm("status", "--results", str(s3))


@pytest.mark.sweeps
def test_no_server_is_told_before_anything_starts(machine: Machine) -> None:
    """The store's client takes its time, a second."""
    for arguments in (["sweep", str(QUICKSTART), "--results"], ["status"], ["report"]):
        with pytest.raises(UserError, match="Could not connect to server"):
            vlm_rm(*arguments, NO_SERVER)


@pytest.mark.sweeps
def test_a_server_that_says_nothing_is_not_waited_for(machine: Machine) -> None:
    """Nor is the process that has asked it: it ends."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = NO_SERVER.replace("127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}")
        done = subprocess.run(
            [sys.executable, "-c", "from vlm_rm_sweeps.cli import main; main()", "status", address],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert "Timeout was reached" in done.stderr
