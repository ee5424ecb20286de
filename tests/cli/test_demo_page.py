"""The demo's page over HTTP, where gradio is installed; and its absence."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch
from pictures import texture

from fewlabels import Embedder, Index
from fewlabels.cli.demo_guards import LimitedBody
from fewlabels.cli.main import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("demo")
    torch.manual_seed(0)
    options = {"image_size": 16, "backbone_options": {"width": 0.25}}
    embedder = Embedder("convnet3", embedding_size=8, **options)
    embedder.save_pretrained(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for i in range(4):
        texture(i, 40).save(tmp_path / "photos" / f"{i}.png")
    Index.build(embedder, tmp_path / "photos").save(tmp_path / "photos.index")
    return tmp_path


def test_without_gradio_the_extra_is_named(place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", str(place / "model"), str(place / "photos.index")]) == 2
    assert capsys.readouterr().err == "fewlabels demo needs gradio; pip install 'fewlabels[demo]'\n"


def test_gradio_is_not_imported_by_other_commands():
    code = "import fewlabels.cli.main, fewlabels.cli.demo_page, sys; print('gradio' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def ask(port, path, session="abc"):
    """What the page answers to a program that gives a path as if it had uploaded that."""
    api = f"http://127.0.0.1:{port}/gradio_api/queue"
    dropped = {"path": path, "meta": {"_type": "gradio.FileData"}}
    asked = {"data": [dropped, 1, 0, False], "fn_index": 0, "session_hash": session}
    words = {"data": json.dumps(asked).encode(), "headers": {"Content-Type": "application/json"}}
    with urlopen(Request(f"{api}/join", **words)):
        pass
    with urlopen(f"{api}/data?session_hash={session}") as told:
        return told.read().decode()


def test_it_is_served_to_this_machine_alone_and_asks_no_other(place, port):
    pytest.importorskip("gradio")
    words = [str(place / "model"), str(place / "photos.index"), "--images", str(place / "photos")]
    (place / "tmp").mkdir()
    hostile = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SHARE": "True"}
    hostile["GRADIO_ANALYTICS_ENABLED"] = "True"
    nowhere = "http://127.0.0.1:9"
    hostile |= {f"{name}_proxy": nowhere for name in ("http", "https", "all")}
    page = subprocess.Popen(
        [sys.executable, "-m", "fewlabels", "demo", *words, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **hostile, "TMPDIR": str(place / "tmp")},
    )
    try:
        assert page.stdout.readline() == f"http://127.0.0.1:{port}/  (Ctrl+C ends it)\n"
        with urlopen(f"http://127.0.0.1:{port}/config") as got:
            policy, config = got.headers["Content-Security-Policy"], json.load(got)
        assert policy.startswith("default-src 'self'")
        assert "http" not in policy
        assert config["analytics_enabled"] is False
        told = json.dumps(config, ensure_ascii=False)
        assert "**4 images**" in told
        assert "convnet3, 8 dimensions" in told
        with pytest.raises(HTTPError, match="400"):  # another page's name for this machine
            urlopen(Request(f"http://127.0.0.1:{port}/config", headers={"Host": "evil.example"}))
        assert "cannot be read as an image" in ask(port, nowhere)
        listening = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True).stdout
        assert f"0.0.0.0:{port}" not in listening
        page.send_signal(signal.SIGINT)
        assert page.wait() == 130
        assert not list((place / "tmp").iterdir())  # nothing that was dropped stays
    finally:
        page.kill()


@pytest.fixture(scope="module")
def page(place):
    """The port of a page that is served."""
    pytest.importorskip("gradio")
    words = [str(place / "model"), str(place / "photos.index"), "--images", str(place / "photos")]
    served = subprocess.Popen(
        [sys.executable, "-m", "fewlabels", "demo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield int(served.stdout.readline().partition("127.0.0.1:")[2].partition("/")[0])
    finally:
        served.kill()
        served.wait()


def send(port, route, body=b"", method="POST", **headers):
    """The status and the text that a request is answered by; underscores stand for dashes."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, f"/gradio_api/{route}", body, headers)
    with connection.getresponse() as answer:
        return answer.status, answer.read().decode()


def upload(port, *contents, **headers):
    files = [
        b'--X\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%s\r\n'
        % each
        for each in contents
    ]
    kind = "multipart/form-data; boundary=X"
    return send(port, "upload", b"".join([*files, b"--X--\r\n"]), Content_Type=kind, **headers)


def test_an_upload_is_limited(page):
    assert upload(page, bytes(19_000_000))[0] == 200
    status, told = upload(page, bytes(20 * 2**20 + 1))
    assert status == 413
    assert "maximum allowed size" in told


@pytest.mark.parametrize("route", ["upload", "queue/join", "component_server", "nowhere"])
def test_no_route_takes_more_than_an_upload(page, route):
    for size in (50 * 2**20, "9" * 300):  # is only announced
        assert send(page, route, Content_Length=str(size))[0] in (400, 413)
    told = send(page, route, Content_Length=str(50 * 2**20))
    assert told == (413, "At most 20 MB can be sent.")


def test_what_is_sent_without_saying_how_much_is_cut_off():
    pytest.importorskip("starlette")
    from starlette.exceptions import HTTPException

    read = []

    async def receive():
        return {"type": "http.request", "body": bytes(2**20), "more_body": True}

    async def read_all(scope, receive, send):
        while True:
            read.append((await receive())["body"])

    request = {"type": "http", "method": "POST", "headers": [(b"transfer-encoding", b"chunked")]}
    with pytest.raises(HTTPException) as refused:
        asyncio.run(LimitedBody(read_all)(request, receive, None))
    assert refused.value.status_code == 413
    assert len(read) == 21


JOIN = json.dumps({"data": [None, 1, 0, False], "fn_index": 0, "session_hash": "o"}).encode()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
def test_another_web_page_cannot_send_to_it(page, headers):
    for kind in ("application/json", "text/plain"):
        assert send(page, "queue/join", JOIN, Content_Type=kind, **headers)[0] == 403
    assert upload(page, b"x", **headers)[0] == 403
    assert send(page, "queue/join", b"", "PUT", **headers)[0] == 403


def test_its_own_page_and_programs_can(page):
    for host in (f"127.0.0.1:{page}", f"localhost:{page}"):
        own = {"Host": host, "Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"}
        assert upload(page, b"x", **own)[0] == 200
        assert send(page, "queue/join", JOIN, Content_Type="application/json", **own)[0] == 200
    assert upload(page, b"x")[0] == 200


def test_posted_paths_lead_nowhere(page, place):
    for path in (place / "photos" / "0.png", "/etc/passwd", "../photos/0.png"):
        told = ask(page, str(path), "path")
        assert '"success":false' in told
        assert send(page, f"file={path}", method="GET")[0] in (403, 404)


def test_fifty_visitors_at_once_are_answered(page, place):
    [path] = json.loads(upload(page, (place / "photos" / "2.png").read_bytes())[1])
    with ThreadPoolExecutor(50) as visitors:
        told = list(visitors.map(lambda i: ask(page, path, f"visitor{i}"), range(50)))
    assert all("The nearest 1 of 4 images" in each and "2.png" in each for each in told)
