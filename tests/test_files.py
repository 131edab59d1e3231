"""Names that come from data stay inside their folder; files are replaced atomically; checksums are those of the content."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from disk import full_disk
from pydantic import TypeAdapter

from vlm_rm_sweeps.errors import DamagedFileError, UserError
from vlm_rm_sweeps.files import file_inside, new_output, read_json, read_text, read_whole, sha256_of, write_whole, written_whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    return tmp_path / "folder"


@pytest.mark.parametrize("name", ["a.png", "below/a.png", "below/../a.png", "a..png"])
def test_names_inside_are_given_back_as_they_are(folder: Path, name: str) -> None:
    assert file_inside(folder, name) == folder / name


@pytest.mark.parametrize("name", ["../secret", "below/../../secret", "/etc/passwd", "..", "below/../../folder-2/a.png"])
def test_names_that_lead_out_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match="is refused"):
        file_inside(folder, name)


def test_links_that_lead_out_are_refused_and_others_are_not(folder: Path) -> None:
    (folder / "out").symlink_to(folder.parent)
    (folder / "secret.png").symlink_to(folder.parent / "secret")
    (folder / "again.png").symlink_to(folder / "a.png")
    for name in ("out/secret", "secret.png"):
        with pytest.raises(UserError, match="is refused"):
            file_inside(folder, name)
    assert file_inside(folder, "again.png") == folder / "again.png"


def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert file_inside(link, "a.png") == link / "a.png"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_whole(file, "ä" * 100)
    with full_disk(room=150), pytest.raises(OSError, match="File too large"):
        write_whole(file, "b" * 200)
    assert file.read_text(encoding="utf-8") == "ä" * 100
    assert list(tmp_path.iterdir()) == [file]


def test_two_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with written_whole(file) as first, written_whole(file) as second:
        first.write_text("first")
        second.write_text("second")
    assert file.read_text() == "first"  # its context ended last
    assert list(tmp_path.iterdir()) == [file]


def test_what_another_process_has_written_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"

    def write(text: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        with new_output(file, replaces=False) as unfinished:
            unfinished.write_text(text)
            meanwhile()

    with pytest.raises(UserError, match=r"file exists now and is not overwritten: .* Choose another name"):
        write("second", meanwhile=lambda: write("first"))
    assert file.read_text() == "first"
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_appears_whole_and_replaces_none(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with new_output(folder) as unfinished:
        unfinished.mkdir()
        (unfinished / "a").write_text("a")
        assert not folder.exists()
    assert (folder / "a").read_text() == "a"
    with pytest.raises(UserError, match="exists now and is not overwritten"), new_output(folder) as unfinished:
        unfinished.mkdir()
    assert [each.name for each in folder.iterdir()] == ["a"]
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("something else"), KeyboardInterrupt()])
def test_what_could_not_be_written_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    expected = UserError if isinstance(error, OSError) else type(error)

    def write() -> None:
        with new_output(tmp_path / "a" / "b" / "file") as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(expected):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = r"file/below cannot be written \((Not a directory|File exists)"
    with pytest.raises(UserError, match=message), new_output(tmp_path / "file" / "below") as unfinished:
        unfinished.touch()


def test_links_in_a_loop_are_refused(folder: Path) -> None:
    (folder / "loop").symlink_to(folder / "loop")
    for name in ("loop", "a\0b"):
        with pytest.raises(UserError, match="is refused"):
            file_inside(folder, name)


NUMBERS = TypeAdapter(dict[str, list[int]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": [1, "5"]}', r"file is damaged: a\.1 = '5': input should be a valid integer: mend it"),
        (b"[]", "file is damaged: expected keys with their values"),
        (b"", "file is damaged: invalid JSON"),
        (b'{"a": [1', "file is damaged: invalid JSON"),
        (b"\xff", "file is damaged: invalid JSON"),
        (b'{"a": [NaN]}', r"a\.0 = nan: input should be"),
        (b"[" * 100_000, "file is damaged: invalid JSON"),
        (b'{"a": "' + b"x" * 10_000 + b'"}', r"a = 'x{59}\.\.\.: input should be"),
        (None, r"file cannot be read \(No such file or directory\): mend it"),
    ],
)
def test_json_is_read_through_a_type(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DamagedFileError, match=message):
        read_json(file, NUMBERS, "mend it")


def test_a_file_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.json"
    with file.open("wb") as opened:
        opened.truncate(20 * 2**30)  # a hole, which takes no room on the disk
    with pytest.raises(DamagedFileError, match="it is larger than 1,024 MiB"):
        read_whole(file, "restore it")


def test_only_a_pipe_with_a_writer_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.files._WRITER_COMES_WITHIN_S", 0)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"pipe: cannot be read \(it is a pipe to which nobody writes\); expected a list"):
        read_text(pipe, "a list")
    reader, writer = os.pipe()  # as a shell's `<(command)`
    set_blocking = os.set_blocking

    def write_late(descriptor: int, blocking: bool) -> None:
        os.write(writer, b"\xef\xbb\xbfgoal")
        os.close(writer)
        set_blocking(descriptor, blocking)

    monkeypatch.setattr(os, "set_blocking", write_late)
    assert read_text(Path(f"/dev/fd/{reader}"), "a list") == "goal"
    os.close(reader)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match="is not a file"):
        read_json(tmp_path, NUMBERS, "mend it")


def test_checksum_is_sha256_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    # The example in FIPS 180-2, appendix B.1.
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_text_is_read_without_its_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffa pole\r\n".encode())
    assert read_text(tmp_path / "a.txt", "a text") == "a pole\r\n"


def test_what_is_no_text_file_is_refused_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "marked").write_bytes("first\nna\ufeffme: a".encode())
    (tmp_path / "latin").write_bytes(b"\xfc")
    for name, message in {
        "/dev/zero": "is larger than 1 MB; expected a text",
        "loop": "cannot be read .*symbolic links",
        "x" * 300: "cannot be read .*File name too long",
        "a\0b": "cannot be read .*null",
        ".": "cannot be read .*directory",
        "marked": r"line 2 has a byte order mark \(U\+FEFF\)",
        "latin": "is not a text file in UTF-8",
    }.items():
        with pytest.raises(UserError, match=message):
            read_text(tmp_path / name, "a text")


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    """As the superuser, `--out /dev/null` would take the device away from all programs."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"pipe cannot be written \(it is neither a file nor a folder\)"), new_output(pipe):
        pass
    assert pipe.is_fifo()
