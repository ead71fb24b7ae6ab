"""The processes of `tests/forking.py` are like new ones, but for what is imported already."""

import json
import os

SHOW = """
import json, os, sys
names = ("RANK", "WORLD_SIZE", "OWN")
seen = [os.getcwd(), sys.argv, sys.stdin.read(), [os.environ.get(name) for name in names]]
print(json.dumps([seen, __name__, os.getppid()]))
"""


def test_directory_environment_words_and_input_are_its_own(python, tmp_path):
    done = python("-c", SHOW, "a", 1, cwd=tmp_path, env={"OWN": "x"}, input="given")
    assert (done.returncode, done.stderr) == (0, "")
    seen, name, parent = json.loads(done.stdout)
    assert seen == [str(tmp_path), ["-c", "a", "1"], "given", [None, None, "x"]]
    assert name == "__main__"
    assert parent != os.getpid()
    again = python("-c", SHOW, cwd=tmp_path)
    assert json.loads(again.stdout)[0] == [str(tmp_path), ["-c"], "", [None, None, None]]


def test_threads_are_as_many_as_its_environment_says(python):
    code = "import torch; print(torch.get_num_threads())"
    assert python("-c", code, env={"OMP_NUM_THREADS": "3"}).stdout == "3\n"
    assert python("-c", code, processes=2).stdout == "1\n1\n", "as under torchrun"


def test_it_ends_as_a_process_does(python, tmp_path):
    (tmp_path / "script.py").write_text("import sys; sys.exit(sys.argv[1])")
    told = python(tmp_path / "script.py", "in words")
    assert (told.returncode, told.stderr) == (1, "in words\n")
    broken = python("-c", "1 / 0")
    assert broken.returncode == 1
    assert "ZeroDivisionError" in broken.stderr
    assert python("-c", "import os; os.kill(os.getpid(), 9)").returncode == -9
    shown = python("-m", "soundreel", "--version")
    assert shown.returncode == 0
    assert shown.stdout.startswith("soundreel ")


def test_several_are_told_who_they_are_and_end_together(python):
    code = "import os, time; print(os.environ['RANK'], flush=True); time.sleep(0.2)"
    done = python("-c", code, processes=2)
    assert done.returncode == 0
    assert sorted(done.stdout.split()) == ["0", "1"]
    one = python("-c", f"{code}; assert os.environ['RANK'] == '1'; time.sleep(500)", processes=2)
    assert one.returncode == 1
    assert one.stderr.count("AssertionError") == 1
