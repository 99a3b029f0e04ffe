"""Files that strangers wrote, and files that are written: what is refused, and what is never left behind."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nge_search.errors import UserError
from nge_search.files import TEMPORARY, new_folder, read_bytes, read_text, require_regular, user_path, write_atomic


def test_home_folders_are_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs/a") == tmp_path / "runs" / "a"
    assert user_path("~") == tmp_path
    assert user_path("runs/~") == Path("runs/~")
    with pytest.raises(UserError, match="no such home folder"):
        user_path("~nobody-of-that-name/runs")
    with pytest.raises(UserError, match="null character"):
        user_path("a\0b")


def test_only_ordinary_files_are_read(tmp_path: Path) -> None:
    pipe, folder, sock, link = (tmp_path / name for name in ("pipe", "folder", "socket", "link"))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(sock))
        for path, words in (
            (pipe, "a named pipe"),
            (folder, "a folder"),
            (sock, "a socket"),
            (Path("/dev/zero"), "a device"),
            (link, "broken link"),
            (tmp_path / "nowhere", "does not exist"),
        ):
            with pytest.raises(UserError, match=words):
                read_bytes(path, 100)


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="this system has no /proc")
def test_links_into_proc_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "config.yaml"
    link.symlink_to("/proc/self/environ")
    with pytest.raises(UserError, match="a file of the kernel"):
        read_bytes(link, 100)


def test_sizes_are_limited_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # takes no space
    with pytest.raises(UserError, match="more than the 100"):
        read_bytes(path, 100)
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, 100) == b"x" * 100
    assert require_regular(path) == 100


def test_text_is_utf8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_text(path, 100) == "a: 1"
    path.write_bytes(b"a: \xff")
    with pytest.raises(UserError, match="not a text file"):
        read_text(path, 100)
    assert read_text(path, 100, errors="replace") == "a: �"


def test_links_are_neither_followed_nor_replaced(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("precious")
    link.symlink_to(victim)
    with pytest.raises(UserError, match="is a link"):
        write_atomic(link, "new")
    assert victim.read_text() == "precious"
    assert link.is_symlink()
    with pytest.raises(UserError, match="is a device"):
        write_atomic(Path("/dev/null"), "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "victim"]


def test_what_a_killed_writer_leaves_is_told_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def fail(source: Path, target: Path) -> None:
        seen.extend(path.name for path in tmp_path.iterdir())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space") as caught:
        write_atomic(tmp_path / "summary.json", "{}")
    assert caught.value.filename == str(tmp_path / "summary.json")
    assert len(seen) == 1
    assert TEMPORARY.fullmatch(seen[0])
    assert not list(tmp_path.iterdir())
    assert not any(TEMPORARY.fullmatch(name) for name in (".draft.tmp", ".a.1a2b3c4d.tmp", "a.1a2b3c4d.nge-tmp"))


def test_a_new_folder_that_is_for_content_goes_where_there_is_none(tmp_path):
    for for_content, content, stays in ((False, False, True), (True, False, False), (True, True, True)):
        folder = tmp_path / f"{for_content}{content}" / "inner"
        with new_folder(folder, for_content):
            if content:
                (folder / "file").touch()
        assert folder.exists() is folder.parent.exists() is stays
    with pytest.raises(KeyError), new_folder(tmp_path / "a" / "b"):
        raise KeyError
    assert not (tmp_path / "a").exists()
