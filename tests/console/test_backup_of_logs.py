"""Copying logs while they are put away. The whole drill is `tests/whole/test_backup.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from console.services import backup


def test_a_log_that_is_sealed_while_it_is_copied_is_in_the_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = tmp_path / "logs" / "ab" / "abcd" / "0-MAIN"
    stream.mkdir(parents=True)
    for start in (0, 5):
        (stream / f"{start:020}.log").write_bytes(b"half\n")
    (stream / "marks").write_bytes(b"")
    copy = shutil.copyfile

    def sealed_meanwhile(source: Path, to: Path) -> object:
        if source.suffix == ".log" and not (stream / "sealed.zst").exists():
            (stream / "sealed.zst").write_bytes(b"all of it")
            for path in stream.glob("*.log"):
                path.unlink()
        return copy(source, to)

    monkeypatch.setattr(shutil, "copyfile", sealed_meanwhile)
    backup._copy(tmp_path / "logs", tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy" / stream.relative_to(tmp_path / "logs")).iterdir()} == {
        "marks",
        "sealed.zst",
    }


def test_what_is_only_half_a_file_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "sealed.12ab.new").write_bytes(b"half")
    (tmp_path / "logs" / "lines").write_bytes(b"x")
    backup._copy(tmp_path / "logs", tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["lines"]
