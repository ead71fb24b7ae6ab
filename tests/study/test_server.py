"""The web server: turns, ranges, refusals, and what raters must not learn."""

import http.client
import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from soundreel.errors import SoundreelError
from soundreel.study.design import load_study
from soundreel.study.protocol import QUESTIONS
from soundreel.study.ranges import UnsatisfiableRangeError, requested_range
from soundreel.study.server import MAX_BODY_BYTES, StudyServer

SECRETS = (b"zebra-net", b"yak-diffusion", b"narwhal", b"noise 1")


class Visitor:
    """A browser without a window; keeps every byte it was sent."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection(*server.server_address[:2], timeout=20)
        self.token = ""
        self.received = b""

    def request(self, method, path, body=None, headers=None):
        """Status, headers and content of the answer."""
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            sent["Content-Type"] = "application/json"
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.connection.request(method, path, body, sent | (headers or {}))
        reply = self.connection.getresponse()
        content = reply.read()
        self.received += repr(reply.getheaders()).encode() + content
        return reply.status, dict(reply.getheaders()), content

    def json(self, method, path, body=None):
        status, _, content = self.request(method, path, body)
        return status, json.loads(content)

    def start(self):
        status, made = self.json("POST", "/api/start", {"consent": True})
        assert status == 200
        self.token = made["token"]
        return self.json("GET", "/api/state")[1]

    def answer(self, state, values):
        body = {"trial": state["trial"], "answers": values, "num_plays": 1}
        return self.json("POST", "/api/answer", body)


@pytest.fixture
def server(study_folder):
    opened = StudyServer(study_folder, "127.0.0.1", 0)
    thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield opened
    opened.shutdown()
    thread.join()
    opened.server_close()


@pytest.fixture
def visitor(server):
    made = Visitor(server)
    yield made
    made.connection.close()


def good_values(state):
    values = {question.key: 2 for question in QUESTIONS[state["test"]]}
    return dict.fromkeys(values, state["asked"]) if state["asked"] else values


def test_a_whole_study_over_http_tells_nothing_about_the_clips(server, visitor):
    visitor.request("GET", "/")
    visitor.json("GET", "/api/study")
    state = visitor.start()
    trials = []
    while not state["finished"]:
        trials.append(state["trial"])
        status, headers, content = visitor.request("GET", f"/clip/{state['trial']}.mp4")
        assert (status, headers["Content-Type"], content[4:8]) == (200, "video/mp4", b"ftyp")
        assert set(state) == {"finished", "trial", "position", "total", "test", "asked"}
        time.sleep(0.45)
        status, state = visitor.answer(state, good_values(state))
        assert status == 200
    assert len(trials) == len(set(trials)) == 3 + 1 + 3 + 2
    assert len(server.service.store.answered_trials()) == 9
    study = load_study(server.service.folder)
    for secret in (*SECRETS, *(clip.id.encode() for clip in study.clips)):
        assert secret not in visitor.received
    assert b"Last-Modified" not in visitor.received
    assert b"ETag" not in visitor.received


def test_addresses_of_clips_are_new_for_everyone(server):
    store, study = server.service.store, server.service.study
    for _ in range(12):
        store.add_rater(study, 0.0)
    rows = store._db.execute("SELECT id, clip FROM trials").fetchall()
    assert len({trial for trial, _ in rows}) == len(rows) == 12 * 9
    assert len({clip for _, clip in rows}) == 13
    # No character at any place goes with a system.
    system_of = {clip.id: clip.system for clip in study.clips}
    for place in range(16):
        for system in study.systems:
            letters = {t[place] for t, clip in rows if system_of[clip] == system}
            others = {t[place] for t, clip in rows if system_of[clip] != system}
            assert letters & others


def test_a_link_goes_on_where_it_stopped_even_at_another_server(server, visitor, study_folder):
    state = visitor.start()
    time.sleep(0.45)
    _, second = visitor.answer(state, good_values(state))
    assert visitor.json("GET", "/api/state")[1] == second
    other = StudyServer(study_folder, "127.0.0.1", 0)
    assert other.service.state(visitor.token) == second
    other.server_close()


def test_an_answer_sent_twice_is_kept_once(server, visitor):
    state = visitor.start()
    time.sleep(0.45)
    first = visitor.answer(state, {"vote": 2} if state["asked"] is None else good_values(state))
    again = visitor.answer(state, {"vote": 2} if state["asked"] is None else good_values(state))
    assert first == again
    assert visitor.answer(state, {"vote": 1})[0] == 409
    assert len(server.service.store.answered_trials()) == 1


def test_phones_get_the_parts_they_ask_for(visitor):
    path = f"/clip/{visitor.start()['trial']}.mp4"
    whole = visitor.request("GET", path)[2]
    size = len(whole)
    for asked, first, last in (
        ("bytes=0-1", 0, 1),
        ("bytes=100-", 100, size - 1),
        ("bytes=-50", size - 50, size - 1),
        (f"bytes=10-{size * 2}", 10, size - 1),
    ):
        status, headers, part = visitor.request("GET", path, headers={"Range": asked})
        assert status == 206
        assert headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert part == whole[first : last + 1]
    status, headers, part = visitor.request("GET", path, headers={"Range": f"bytes={size}-"})
    assert (status, headers["Content-Range"], part) == (416, f"bytes */{size}", b"")
    status, headers, part = visitor.request("HEAD", path)
    assert (status, headers["Content-Length"], part) == (200, str(size), b"")
    assert headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    "header", [None, "", "bytes=-", "bytes=5-2", "bytes=0-1,4-5", "items=0-1", "bytes=a-b"]
)
def test_what_is_no_range_means_the_whole_file(header):
    assert requested_range(header, 10) is None


def test_a_range_of_nothing_is_unsatisfiable():
    for header, size in (("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0), ("bytes=10-", 10)):
        with pytest.raises(UnsatisfiableRangeError):
            requested_range(header, size)


def test_what_makes_no_sense_is_refused(server, visitor):
    for method, path, body, status in (
        ("GET", "/nothing", None, 404),
        ("GET", "/study.json", None, 404),
        ("GET", "/answers.sqlite", None, 404),
        ("GET", "/clip/../study.json", None, 404),
        ("GET", "/clip/..%2fstudy.json", None, 404),
        ("GET", "/clip/%2e%2e/study.mp4", None, 404),
        ("GET", "/clip/unknown.mp4", None, 404),
        ("GET", "//etc/passwd", None, 404),
        ("GET", "/api/state", None, 401),
        ("POST", "/api/start", {}, 400),
        ("POST", "/api/start", {"consent": False}, 400),
        ("POST", "/api/start", [True], 400),
        ("POST", "/api/start", b"{", 400),
        ("POST", "/api/start", b"[" * 4000, 400),
        ("POST", "/api/start", b"\xff", 400),
        ("POST", "/api/start", b" " * (MAX_BODY_BYTES + 1), 413),
        ("POST", "/api/nothing", {}, 404),
        ("POST", "/api/answer", {"trial": "x", "answers": {}, "num_plays": 1}, 401),
        ("PUT", "/api/start", {}, 501),
    ):
        assert visitor.request(method, path, body)[0] == status, (method, path, body)
        assert visitor.request("GET", "/")[0] == 200
    assert server.service.store.progress() == {}


def test_answers_are_validated(server, visitor):
    state = visitor.start()
    time.sleep(0.45)
    for changes in (
        {"trial": 3},
        {"trial": None},
        {"answers": [2]},
        {"answers": {"vote": "2"}},
        {"answers": {"vote": 2.0}},
        {"answers": {"vote": True}},
        {"answers": {"vote": 4}},
        {"answers": {"vote": 2, "video": 1}},
        {"num_plays": 0},
        {"num_plays": True},
        {"num_plays": 10**9},
        {"more": 1},
    ):
        body = {"trial": state["trial"], "answers": {"vote": 2}, "num_plays": 1} | changes
        status, content = visitor.json("POST", "/api/answer", body)
        assert (status, set(content)) == (400, {"error"}), changes
    assert server.service.store.answered_trials() == []


def test_pages_of_other_sites_cannot_start_a_rater(server, visitor):
    body, kind = json.dumps({"consent": True}).encode(), {"Content-Type": "text/plain"}
    assert visitor.request("POST", "/api/start", body, kind)[0] == 415
    assert server.service.store.progress() == {}


def test_a_request_without_a_length_is_refused(server):
    with socket.create_connection(server.server_address[:2], timeout=20) as raw:
        raw.sendall(
            b"POST /api/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n"
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 411")


def test_the_page_runs_its_own_script_and_loads_nothing(visitor):
    _, headers, page = visitor.request("GET", "/")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert b"http://" not in page
    assert b"https://" not in page
    assert b" style=" not in page  # the policy would ignore it
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_an_address_in_use_is_one_line(server, study_folder):
    with pytest.raises(ValueError, match=r"cannot listen on 127\.0\.0\.1, port"):
        StudyServer(study_folder, "127.0.0.1", server.server_address[1])


def test_slow_connections_lock_nobody_out(server, visitor):
    slow = [socket.create_connection(server.server_address[:2], timeout=20) for _ in range(400)]
    try:
        for index, connection in enumerate(slow):  # half of them stop within a body
            head = b"POST /api/start HTTP/1.1\r\nHost: localhost\r\n"
            more = b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            connection.sendall(head + more if index % 2 else head)
        state = visitor.start()
        assert not state["finished"]
        assert visitor.request("GET", f"/clip/{state['trial']}.mp4")[0] == 200
    finally:
        for connection in slow:
            connection.close()


def test_the_body_of_a_get_is_not_the_next_request(server, visitor):
    smuggled = b"POST /api/start HTTP/1.1\r\nHost: localhost\r\n"
    smuggled += b'Content-Type: application/json\r\nContent-Length: 17\r\n\r\n{"consent": true}'
    with socket.create_connection(server.server_address[:2], timeout=5) as raw:
        raw.sendall(
            b"GET /api/study HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(smuggled), smuggled)
        )
        raw.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = b""
        while part := raw.recv(65_536):
            received += part
    assert received.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 200" in received
    assert b"HTTP/1.1 404" in received
    assert server.service.store.progress() == {}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8765", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8765", 200),
        ("study.example:443", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("study.example.evil", 421),
        ("evil.example:8765", 421),
        ("", 421),
        ("a b", 421),
    ],
)
def test_requests_for_other_names_are_refused(host, status, study_folder):
    opened = StudyServer(study_folder, "127.0.0.1", 0, allowed_hosts=["Study.example"])
    thread = threading.Thread(target=opened.serve_forever, args=(0.05,))
    thread.start()
    try:
        found = Visitor(opened)
        assert found.request("GET", "/api/study", headers={"Host": host})[0] == status
        found.connection.close()
    finally:
        opened.shutdown()
        thread.join()
        opened.server_close()


def test_without_the_library_that_is_one_line(study_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "waitress.server", None)
    with pytest.raises(SoundreelError, match=r"pip install 'soundreel\[study\]'"):
        StudyServer(study_folder, "127.0.0.1", 0)


@pytest.mark.slow
def test_no_honest_request_is_lost_among_two_thousand_slow_ones(study_folder):
    """The server has a process of its own: both ends of a connection take a file."""
    program = "import sys; from soundreel.cli.main import run; sys.exit(run(sys.argv[1:]))"
    arguments = ["study", "serve", str(study_folder), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
    )
    address = ("127.0.0.1", int(process.stdout.readline().split()[0].split(":")[2].rstrip("/")))
    slow, statuses = [], []

    def ask():
        connection = http.client.HTTPConnection(*address, timeout=60)
        connection.request("GET", "/api/study")
        statuses.append(connection.getresponse().status)
        connection.close()

    try:
        for _ in range(2000):
            slow.append(socket.create_connection(address, timeout=60))
            slow[-1].sendall(b"GET / HTTP/1.1\r\nHost: local")
        threads = [threading.Thread(target=ask) for _ in range(500)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 500
    finally:
        for connection in slow:
            connection.close()
        process.terminate()
        process.wait()
        process.stdout.close()
