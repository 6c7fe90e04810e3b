"""Compressed files that are read at any place."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.logs import frames
from runs.logs.frames import Damaged, File


def packed(path: Path, blocks: list[bytes]) -> File:
    with path.open("wb") as out:
        frames.pack(blocks, out)
    return File(path)


@given(blocks=st.lists(st.binary(min_size=1, max_size=50), max_size=12), places=st.data())
def test_any_part_of_what_was_packed_is_read(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[bytes], places: st.DataObject
) -> None:
    source, whole = packed(tmp_path_factory.mktemp("packed") / "file", blocks), b"".join(blocks)
    offset = places.draw(st.integers(0, len(whole) + 3))
    end = places.draw(st.integers(offset, len(whole) + 9))
    assert frames.read(source, offset, end) == whole[offset:end]


def test_a_read_unpacks_no_more_than_the_frames_it_touches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [random.Random(number).randbytes(1000) for number in range(40)]
    source = packed(tmp_path / "file", blocks)
    unpacked: list[bytes] = []
    unpack = frames._unpacked

    def noted(frame: bytes) -> bytes:
        unpacked.append(frame)
        return unpack(frame)

    monkeypatch.setattr(frames, "_unpacked", noted)
    assert frames.read(source, 20_500, 21_500) == (blocks[20] + blocks[21])[500:1500]
    assert len(unpacked) == 2
    frames.read(source, 20_000, 22_000)
    assert len(unpacked) == 2  # they were kept


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd on this machine")
def test_the_usual_program_unpacks_it(tmp_path: Path) -> None:
    packed(tmp_path / "file.zst", [b"one\n" * 5000, b"two\n"])
    done = subprocess.run(["zstd", "-dc", tmp_path / "file.zst"], capture_output=True, check=True)
    assert done.stdout == b"one\n" * 5000 + b"two\n"


@pytest.mark.parametrize("place", [0.3, 0.9, 0.999])
def test_one_bit_that_fell_over_is_noticed(tmp_path: Path, place: float) -> None:
    whole = random.Random(1).randbytes(9000)
    packed(tmp_path / "good", [whole[:5000], whole[5000:]])
    data = bytearray((tmp_path / "good").read_bytes())
    data[int(len(data) * place)] ^= 0x10
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(Damaged):
        frames.read(File(tmp_path / "bad"), 0, len(whole))


def test_a_file_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    packed(tmp_path / "good", [b"x" * 5000])
    for kept in (0, 5, 20):
        (tmp_path / f"bad{kept}").write_bytes((tmp_path / "good").read_bytes()[:kept])
        with pytest.raises(Damaged):
            frames.read(File(tmp_path / f"bad{kept}"), 0, 5000)
