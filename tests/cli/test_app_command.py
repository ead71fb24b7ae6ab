"""`soundreel app` cleans up: at SIGTERM, and after pages that were killed; a taken port is said."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from soundreel.cli import app

pytest.importorskip("gradio", reason="needs pip install 'soundreel[app]'")


def test_what_killed_pages_left_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(app.tempfile, "gettempdir", lambda: str(tmp_path))
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    for name in (f"{app.PREFIX}{dead}-x", f"{app.PREFIX}{os.getpid()}-y", "other-1-z"):
        (tmp_path / name / "uploads").mkdir(parents=True)
    app.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "other-1-z",
        f"{app.PREFIX}{os.getpid()}-y",
    ]


def start(port: int, tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from soundreel.cli.main import main; main()"]
    return subprocess.Popen(
        [*command, "app", "--port", str(port)],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_sigterm_deletes_the_uploads_and_a_taken_port_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = start(taken.getsockname()[1], tmp_path)
        _, errors = refused.communicate(timeout=300)
        assert refused.returncode == 2
        assert "is taken; choose another with --port" in errors
        port = taken.getsockname()[1]
    page = start(port, tmp_path)
    deadline = time.monotonic() + 300
    while page.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.5)
    content = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n12\r\n--x--'
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    url = f"http://127.0.0.1:{port}/gradio_api/upload"
    urllib.request.urlopen(urllib.request.Request(url, content, kind), timeout=60).close()
    assert list(tmp_path.rglob("a.mp4"))
    page.send_signal(signal.SIGTERM)
    page.communicate(timeout=60)
    assert page.returncode == 0
    assert list(tmp_path.rglob("a.mp4")) == []
    assert list(tmp_path.glob(f"{app.PREFIX}*")) == []
