"""`kill -9` in the middle of answers loses none that was acknowledged."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request

from soundreel.study.design import ANSWER_FILE, STUDY_FILE
from soundreel.study.protocol import QUESTIONS
from soundreel.study.store import Store

SERVE = "import sys; from soundreel.cli.main import run; sys.exit(run(sys.argv[1:]))"
NUM_KILLS = 3
NUM_RATERS = 8


def start_server(folder):
    """The process and the page's address."""
    arguments = ["study", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, *arguments], stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().split()[0]


def post(url, token, body):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


def get_state(url, token):
    headers = {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as reply:
        return json.load(reply)


def keep_answering(url, token, acknowledged):
    """Answer trial after trial until the server is gone; note what was acknowledged."""
    try:
        state = get_state(url + "api/state", token)
        while not state["finished"]:
            time.sleep(0.02)
            values = {
                question.key: 1 + len(acknowledged) % 3 for question in QUESTIONS[state["test"]]
            }
            body = {"trial": state["trial"], "answers": values, "num_plays": 1}
            trial = state["trial"]
            state = post(url + "api/answer", token, body)
            acknowledged[trial] = values
    except (OSError, http.client.HTTPException):  # such as half of an answer
        return


def test_kill_minus_nine_loses_no_acknowledged_answer(study_folder):
    # Clips that pass for ended after a hundredth of a second, and enough of them to be killed in.
    path = study_folder / STUDY_FILE
    content = json.loads(path.read_text())
    del content["checksum"]  # of what was written
    content |= {"duration_s": 0.01, "mos_trials": 12, "turing_trials": 12}
    path.write_text(json.dumps(content))
    tokens, acknowledged = [], {}
    num_before = 0
    for attempt in range(NUM_KILLS):
        process, url = start_server(study_folder)
        if not tokens:
            consent = {"consent": True}
            tokens = [post(url + "api/start", "-", consent)["token"] for _ in range(NUM_RATERS)]
        threads = [
            threading.Thread(target=keep_answering, args=(url, token, acknowledged))
            for token in tokens
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(acknowledged) < num_before + 40 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert len(acknowledged) >= num_before + 40, f"attempt {attempt}: too slow to be killed"
        num_before = len(acknowledged)
    store = Store(study_folder / ANSWER_FILE)
    rows = store._db.execute("SELECT trial, question, value FROM answers").fetchall()
    stored = {}
    for trial, question, value in rows:
        stored.setdefault(trial, {})[question] = value
    assert {trial: stored.get(trial) for trial in acknowledged} == acknowledged
    # At most the one answer of each rater that was on its way at each kill is there besides.
    assert len(stored) <= len(acknowledged) + NUM_KILLS * NUM_RATERS
    assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()
