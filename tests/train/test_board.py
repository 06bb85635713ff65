import struct

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from ilp_jax.train.board import Board


def events(folder):
    """TFRecord by hand: length, its checksum, the record, its checksum."""
    found = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            record, content = content[12 : 12 + length], content[8:]
            (first,) = struct.unpack("<I", content[:4])
            (second,) = struct.unpack("<I", content[4 + length : 8 + length])
            assert first == masked_crc32c(struct.pack("<Q", length))
            assert second == masked_crc32c(record)
            found.append(Event.FromString(record))
            content = content[8 + length :]
    return found


def test_points_of_a_curve(tmp_path):
    board = Board(tmp_path / "board")
    board.add("train/loss", 0.5, 3)
    board.close()
    head, point = events(tmp_path / "board")
    assert head.file_version == "brain.Event:2"
    assert point.step == 3
    assert [(v.tag, v.simple_value) for v in point.summary.value] == [("train/loss", 0.5)]


def test_a_resumed_run_hides_what_comes_again(tmp_path):
    Board(tmp_path, purge_step=8).close()
    head, start = events(tmp_path)
    assert start.step == 8 and start.session_log.status == start.session_log.START


def test_a_full_disk_is_an_error_at_the_call(tmp_path, monkeypatch):
    board = Board(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board._writer, "write", full)
    with pytest.raises(OSError, match="No space"):
        board.add("a", 1.0, 1)
    monkeypatch.setattr(board._writer, "close", full)
    board.close()
