"""Names that come from data stay inside their folder; files are replaced atomically; checksums are those of the content."""

import resource
from pathlib import Path

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside, read_text, sha256_of, write_whole


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
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(file, "b" * 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_text(encoding="utf-8") == "ä" * 100
    assert list(tmp_path.iterdir()) == [file]


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
