"""The demo's page over HTTP, where gradio is installed; and its absence."""

import json
import os
import signal
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch
from pictures import texture

from fewlabels import Embedder, Index
from fewlabels.cli.main import main


@pytest.fixture
def place(tmp_path):
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


def ask(port, path):
    """What the page answers to a program that gives a path as if it had uploaded that."""
    api = f"http://127.0.0.1:{port}/gradio_api/queue"
    dropped = {"path": path, "meta": {"_type": "gradio.FileData"}}
    asked = {"data": [dropped, 1, 0, False], "fn_index": 0, "session_hash": "abc"}
    words = {"data": json.dumps(asked).encode(), "headers": {"Content-Type": "application/json"}}
    with urlopen(Request(f"{api}/join", **words)):
        pass
    with urlopen(f"{api}/data?session_hash=abc") as told:
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
        assert page.wait() == 0
        assert not list((place / "tmp").iterdir())  # nothing that was dropped stays
    finally:
        page.kill()
