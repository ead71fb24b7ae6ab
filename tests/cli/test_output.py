"""The folder that a command writes to."""

import os

from soundreel.cli.output import check_folder


def test_what_a_killed_command_left_is_swept_before_the_next_begins(tmp_path):
    left = tmp_path / ".clip-0000.mp4.00000000-1-0.part"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))  # of another machine, which might still write
    (tmp_path / "clip-0001.mp4").write_bytes(b"whole")
    (tmp_path / ".notes").write_text("of somebody else")
    check_folder(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes", "clip-0001.mp4"]
