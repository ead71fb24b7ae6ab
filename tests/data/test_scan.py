"""Lists of sources that cannot be read as such."""

import csv

import pytest

from soundreel.data.manifest import DataError
from soundreel.data.options import PrepareOptions
from soundreel.data.scan import scan


@pytest.mark.parametrize("head", ["path", "# YTID, start_seconds, end_seconds, positive_labels"])
def test_a_field_beyond_the_limit_of_csv_is_one_line(head, tmp_path):
    (tmp_path / "class_labels_indices.csv").write_text("index,mid,display_name\n")
    path = tmp_path / "list.csv"
    path.write_text(f"{head}\n{'x' * (csv.field_size_limit() + 1)}\n")
    with pytest.raises(DataError, match=r"list\.csv.*field larger than field limit") as error:
        scan(path, PrepareOptions(), tmp_path / "set")
    assert "\n" not in str(error.value)
