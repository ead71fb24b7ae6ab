"""What a run shows while it trains: headings, log lines, and how far it is between them."""

import pytest

from soundreel.cli.training_display import TrainingDisplay, clock_text

LINE = {"samples": 80.0, "samples_per_s": 4.0, "time_left_s": 3723.4, "learning_rate": 1e-4}


def test_a_log_line_tells_losses_speed_and_time_left(capsys):
    TrainingDisplay(None)(LINE | {"unet/mse_video": 0.5, "unet/mse_video_q0": 0.25})
    assert (
        capsys.readouterr().err == "       80 clips  mse_video 0.5000  4.00 clips/s  1:02:03 left\n"
    )


def test_two_networks_are_told_apart(capsys):
    TrainingDisplay(None)(LINE | {"critic/grad_norm": 1.0, "decoder/grad_norm": 2.0})
    assert "critic/grad_norm 1.0000  decoder/grad_norm 2.0000" in capsys.readouterr().err


def test_silence_ends_after_half_a_minute_where_there_is_no_terminal(capsys):
    now = [0.0]
    display = TrainingDisplay(None, lambda: now[0])
    for seconds in (0, 10, 20, 29, 30, 45, 59, 60):
        now[0] = float(seconds)
        display.step(10 * seconds, 1200)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["      300 of 1200  0:01:30 left", "      600 of 1200  0:01:00 left"]
    now[0] = 89.0
    display(LINE)
    display.step(890, 1200)
    assert len(capsys.readouterr().err.splitlines()) == 1  # the log line has just spoken


def test_speed_is_that_of_the_stage_under_way(capsys):
    now = [0.0]
    display = TrainingDisplay(None, lambda: now[0])
    display.step(0, 1000)
    now[0] = 20.0
    display.step(1000, 1000)
    display.step(100, 500)  # another stage, resumed at 100
    now[0] = 60.0
    display.step(200, 500)
    assert capsys.readouterr().err == "      200 of 500  0:02:00 left\n"


def test_a_terminal_gets_a_live_line_and_no_more():
    shown = []
    display = TrainingDisplay(lambda *progress: shown.append(progress))
    display.step(8, 80)
    display.step(16, 80)
    assert shown == [(8, 80), (16, 80)]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (7325.0, "2:02:05")]
)
def test_times_are_hours_minutes_seconds(seconds, text):
    assert clock_text(seconds) == text
