"""Saved models on a hub: a stand-in of it on this machine, which keeps what it is sent and hands it out again."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

import zoo

TOKEN = "hf_test"
COMMIT = "0" * 39 + "1"


class Hub(BaseHTTPRequestHandler):
    """Of the hub's protocol what huggingface_hub speaks to make a repository, commit small files, list and fetch them."""

    files: dict[str, dict[str, bytes]]

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/validate-yaml":
            return self.answer({"warnings": [], "errors": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "no token that may write"}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            self.files.setdefault(name, {})
            return self.answer({"url": f"{self.address()}/{name}", "id": name})
        if found := re.match(r"/api/models/(.+)/preupload/", self.path):
            paths = [entry["path"] for entry in json.loads(body)["files"]]
            return self.answer({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]})
        if found := re.match(r"/api/models/(.+)/commit/", self.path):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[found[1]][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"{self.address()}/{found[1]}/commit/{COMMIT}"
            return self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        return self.answer({"error": self.path}, 404)

    def do_GET(self):
        if found := re.match(r"/api/models/([^/]+/[^/]+)(/revision/.*)?$", self.path):
            if found[1] not in self.files:
                return self.missing("RepoNotFound")
            siblings = [{"rfilename": name} for name in self.files[found[1]]]
            return self.answer({"id": found[1], "sha": COMMIT, "siblings": siblings, "tags": [], "downloads": 0})
        if found := re.match(r"/api/models/([^/]+/[^/]+)/tree/", self.path):
            entries = self.files.get(found[1], {}).items()
            return self.answer([{"type": "file", "path": name, "size": len(each), "oid": "0"} for name, each in entries])
        if found := re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)$", self.path):
            content = self.files.get(found[1], {}).get(found[2])
            return self.missing("EntryNotFound") if content is None else self.send(content, "application/octet-stream")
        return self.answer({"error": self.path}, 404)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def address(self):
        return f"http://{self.headers['Host']}"

    def answer(self, facts, status=200):
        self.send(json.dumps(facts).encode(), "application/json", status)

    def missing(self, code):
        self.send(b"{}", "application/json", 404, {"X-Error-Code": code})

    def send(self, content, kind, status=200, headers=None):
        self.send_response(status)
        facts = {
            "ETag": f'"{hash(content)}"',
            "X-Repo-Commit": COMMIT,
            "Content-Type": kind,
            "Content-Length": str(len(content)),
        }
        for name, value in (facts | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture(scope="module")
def hub():
    """Yield the stand-in's address and what it keeps."""
    handler = type("Kept", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.files
    server.shutdown()
    thread.join()
    server.server_close()


SCRIPT = """
import os, sys, torch, zoo

def push(path):
    return zoo.push_to_hub(model, path, classes=["ground", "road"], metrics={"miou": 0.5})

def tell_error(function, *arguments):
    try:
        function(*arguments)
    except zoo.errors.WeightsError as error:
        print(" ".join(str(error).split()))

torch.manual_seed(0)
model = zoo.build("timm:test_resnet", "unet-basic", classes=2).eval()
image = torch.ones(1, 3, 40, 50)
print(push("someone/roads"))
os.environ["HF_TOKEN"] = ""
with torch.no_grad():
    for again in (zoo.load("hf-hub:someone/roads"), zoo.load("hf-hub:someone/roads@main", local_files_only=True)):
        assert again.class_names == ("ground", "road")
        assert torch.equal(again(image), model(image))
os.environ["HF_TOKEN"] = "hf_other"
tell_error(push, "someone/fields")
tell_error(zoo.load, "hf-hub:someone/fields")
tell_error(zoo.load, "hf-hub:someone/weights")
"""


@pytest.fixture(scope="module")
def told(hub, tmp_path_factory):
    """Return what a script says of its models on the stand-in: huggingface_hub reads its address once, when it is imported."""
    address, files = hub
    files["someone/weights"] = {"model.safetensors": bytes(64)}
    home = tmp_path_factory.mktemp("home")
    surroundings = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": TOKEN,
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | surroundings, check=False)
    assert done.returncode == 0, done.stderr
    pushed, refused, missing, foreign = done.stdout.splitlines()
    return SimpleNamespace(pushed=pushed, refused=refused, missing=missing, foreign=foreign, home=home)


def test_a_model_that_was_pushed_is_the_same_when_it_is_loaded_without_a_token(hub, told):
    address, files = hub
    assert told.pushed == f"{address}/someone/roads/commit/{COMMIT}"
    assert sorted(files["someone/roads"]) == ["README.md", "config.yaml", "model.safetensors"]
    assert b"miou: 0.5" in files["someone/roads"]["README.md"]


def test_what_the_hub_refuses_or_has_not_is_told(told):
    assert "timm:test_resnet x unet-basic (classes=2) could not be pushed to someone/fields" in told.refused
    assert "hf auth login" in told.refused
    assert "hf-hub:someone/fields could not be fetched" in told.missing


def test_of_another_programs_weights_only_the_names_are_fetched(told):
    assert "hf-hub:someone/weights contains no saved model: it has no config.yaml" in told.foreign
    assert [path for path in told.home.rglob("*.safetensors") if "roads" not in str(path)] == []
    assert list(told.home.rglob("*.safetensors"))


@pytest.mark.parametrize("options", [{"token": "hf_1"}, {"local_files_only": True, "cache_dir": "cache"}])
def test_options_of_repositories_are_refused_for_a_path(tmp_path, options):
    with pytest.raises(
        zoo.errors.OptionError, match=rf"{next(iter(options))}.*'roads' is a local path\. Pass 'hf-hub:OWNER/NAME'"
    ):
        zoo.load("roads", **options)
