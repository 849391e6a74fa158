"""What the clients call: the test upstream with the services that SDKs and tools expect.

/repository.git/    git's own smart HTTP server (git http-backend), for clone and push
/simple/            a package index for pip and uv, with one package, `tiny`
/npm/@acme%2Ftiny   a package registry for npm, with the same
/mcp                an MCP server over streamable HTTP, which runs beside it
/v1/                the OpenAI and Anthropic APIs, as far as one question goes
/                   S3's list of buckets
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import json
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from tests.support.upstream import Received, Reply, Upstream
from tests.support.upstream_routes import JSON_TYPE

TEXT = "hello from upstream"
WHEEL = "tiny-1.0-py3-none-any.whl"
BUCKETS = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListAllMyBucketsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Owner><ID>1</ID></Owner><Buckets><Bucket><Name>tiny</Name></Bucket></Buckets>
</ListAllMyBucketsResult>"""


class Origin(Upstream):
    """An upstream with these services; the repository lies in `directory`."""

    def __init__(self, directory: Path, mcp_port: int, **options: Any) -> None:
        super().__init__(**options)
        self._mcp_port = mcp_port
        self._root = directory
        self._repository = make_repository(directory)
        self._wheel = make_wheel()
        self._tarball = make_tarball()

    def reply_to(self, request: Received) -> Reply:
        """Records the request; the services first, then what every test upstream answers."""
        service = self._service(request)
        if service is not None:
            self.routes[request.path] = lambda _: service
        return super().reply_to(request)

    def _service(self, request: Received) -> Reply | None:
        path = request.path
        if path.startswith("/repository.git/"):
            return git_backend(self._root, request)
        if path.startswith("/simple/"):
            if path.endswith(".whl"):
                return Reply(body=self._wheel)
            digest = hashlib.sha256(self._wheel).hexdigest()
            link = f'<!doctype html><a href="/simple/{WHEEL}#sha256={digest}">{WHEEL}</a>'
            return Reply(headers=(("Content-Type", "text/html"),), body=link.encode())
        if path.startswith("/npm/"):
            if path.endswith(".tgz"):
                return Reply(body=self._tarball)
            return _json(self._packument(request))
        if path == "/mcp":
            return relayed(request, self._mcp_port)
        if path == "/v1/chat/completions":
            message = {"role": "assistant", "content": TEXT}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            completion = {"id": "c", "object": "chat.completion", "created": 0, "model": "tiny"}
            return _json(completion | {"choices": [choice]})
        if path == "/v1/messages":
            content = [{"type": "text", "text": TEXT}]
            usage = {"input_tokens": 1, "output_tokens": 1}
            message = {"id": "m", "type": "message", "role": "assistant", "model": "tiny"}
            return _json(message | {"content": content, "stop_reason": "end_turn", "usage": usage})
        if path == "/":
            return Reply(headers=(("Content-Type", "application/xml"),), body=BUCKETS)
        return None

    def _packument(self, request: Received) -> dict[str, Any]:
        digest = base64.b64encode(hashlib.sha512(self._tarball).digest()).decode()
        url = f"https://{request.header('host')}/npm/@acme/tiny/-/tiny-1.0.0.tgz"
        dist = {"tarball": url, "integrity": f"sha512-{digest}"}
        version = {"name": "@acme/tiny", "version": "1.0.0", "dist": dist}
        return {
            "name": "@acme/tiny",
            "dist-tags": {"latest": "1.0.0"},
            "versions": {"1.0.0": version},
        }


def _json(document: dict[str, Any]) -> Reply:
    return Reply(headers=JSON_TYPE, body=json.dumps(document).encode())


def make_wheel() -> bytes:
    """A wheel with one module."""
    info = "tiny-1.0.dist-info"
    files = {
        "tiny.py": f"TEXT = {TEXT!r}\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)
    return made.getvalue()


def make_tarball() -> bytes:
    """An npm package with one file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        data = json.dumps({"name": "@acme/tiny", "version": "1.0.0"}).encode()
        member = tarfile.TarInfo("package/package.json")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


def make_repository(directory: Path) -> Path:
    """A bare repository with one commit, which anybody who gets through may push to."""
    repository = directory / "repository.git"
    commit = (
        f"commit refs/heads/main\ncommitter a <a@example.com> 0 +0000\ndata {len(TEXT)}\n{TEXT}\n"
    )
    commit += f"M 644 inline README\ndata {len(TEXT)}\n{TEXT}\n"
    for arguments, given in (
        (("init", "--quiet", "--bare", "--initial-branch=main", str(repository)), ""),
        (("-C", str(repository), "config", "http.receivepack", "true"), ""),
        (("-C", str(repository), "fast-import", "--quiet"), commit),
    ):
        subprocess.run(["git", *arguments], input=given, text=True, check=True)
    return repository


def relayed(request: Received, port: int) -> Reply:
    """What a plain server on this machine answers to the same request."""
    kept = {
        n: v for n, v in request.headers if n.lower().startswith(("mcp-", "content-t", "accept"))
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request(request.method, request.path, request.body, kept)
        answer = connection.getresponse()
        headers = [
            (n, v) for n, v in answer.getheaders() if n.lower().startswith(("mcp-", "content-t"))
        ]
        return Reply(answer.status, headers=headers, body=answer.read())


def git_backend(root: Path, request: Received) -> Reply:
    """What git's CGI program answers (see git-http-backend(1), RFC 3875)."""
    path, _, query = request.target.partition("?")
    given = {
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": request.method,
        "CONTENT_TYPE": request.header("content-type") or "",
        "CONTENT_LENGTH": str(len(request.body)),
        "HTTP_CONTENT_ENCODING": request.header("content-encoding") or "",
        "GIT_PROTOCOL": request.header("git-protocol") or "",
    }
    done = subprocess.run(
        ["git", "http-backend"],
        input=request.body,
        capture_output=True,
        env={"PATH": os.environ["PATH"], "HOME": str(root), **given},
        check=True,
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    pairs = [line.partition(": ")[::2] for line in head.decode().split("\r\n")]
    status = next((int(value.split()[0]) for name, value in pairs if name == "Status"), 200)
    return Reply(status, headers=[p for p in pairs if p[0] != "Status"], body=body)
