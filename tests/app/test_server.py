"""What the page's server takes: uploads as long as there is room for them."""

import http.client
from urllib.parse import urlsplit

import pytest

from soundreel.app.uploads import Limits, stored_bytes
from soundreel.app.workshop import Workshop

pytestmark = pytest.mark.filterwarnings("ignore")  # of Gradio, which leaves sockets open
KIND = {"Content-Type": "multipart/form-data; boundary=xx"}


@pytest.fixture
def workshop(pipeline, tmp_path):
    return Workshop(pipeline, tmp_path, limits=Limits(upload_mb=1.0, stored_mb=1.0))


def body(name, size):
    head = f'--xx\r\nContent-Disposition: form-data; name="files"; filename="{name}.mp4"\r\n\r\n'
    return head.encode() + name.encode() * size + b"\r\n--xx--\r\n"


def send(address, content, headers=KIND):
    """Status of the answer to an upload; a list is sent in pieces, without its size."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request("POST", "/gradio_api/upload", content, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_uploads_are_taken_as_long_as_there_is_room(address, tmp_path):
    kept = stored_bytes(tmp_path)
    assert kept < 100_000
    assert send(address, body("a", 600_000)) == 200
    assert stored_bytes(tmp_path) >= kept + 600_000
    assert send(address, body("b", 600_000)) == 507
    assert send(address, [body("c", 300_000)]) == 411
    assert send(address, body("d", 100_000)) == 200
    assert stored_bytes(tmp_path) <= 1_000_000


def test_an_upload_that_has_not_arrived_takes_its_room(address, tmp_path):
    slow = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    slow.putrequest("POST", "/gradio_api/upload")
    content = body("a", 600_000)
    for name, value in (KIND | {"Content-Length": str(len(content))}).items():
        slow.putheader(name, value)
    slow.endheaders(content[:1000])
    try:
        assert send(address, body("b", 500_000)) == 507
        slow.send(content[1000:])
        assert slow.getresponse().status == 200
    finally:
        slow.close()
    assert stored_bytes(tmp_path) < 1_000_000
