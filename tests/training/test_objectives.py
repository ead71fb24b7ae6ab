"""What objectives share."""

import torch

from soundreel.training.objectives import log_means


def test_quarters_report_means_and_counts_and_count_nothing_where_they_are_empty():
    terms = {"mse_video": torch.tensor([1.0, 3.0, 8.0])}
    got = log_means(terms, torch.tensor([0, 249, 999]), 1000)
    assert {name: (float(mean), int(count)) for name, (mean, count) in got.items()} == {
        "mse_video": (4.0, 3),
        "mse_video_q0": (2.0, 2),
        "mse_video_q1": (0.0, 0),
        "mse_video_q2": (0.0, 0),
        "mse_video_q3": (8.0, 1),
    }
