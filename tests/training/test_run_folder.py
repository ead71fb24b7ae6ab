"""What a training run does to the process, and leaves behind."""

import pytest
import torch

from soundreel.training.run_folder import machine_restored, prepare_machine


def flushes():
    return float(torch.tensor(1e-39) * 1.0) == 0


def test_tiny_numbers_and_threads_are_as_before_once_a_run_has_ended():
    assert not flushes()
    num_threads = torch.get_num_threads()

    @machine_restored()
    def run():
        prepare_machine(num_threads + 1)
        inside = flushes(), torch.get_num_threads()
        raise KeyError(inside)

    for _ in range(2):
        with pytest.raises(KeyError) as error:
            run()
        assert error.value.args[0] == (True, num_threads + 1)
        assert not flushes()
        assert torch.get_num_threads() == num_threads
