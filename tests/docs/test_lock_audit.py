"""`make check` fails on a package that is not pinned or known to be vulnerable, and not on a service that is away."""

from __future__ import annotations

import json
import re
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support.ports import free_port
from tools.audit_lock import ROOT, locked, loose, main

HASH = "sha256:" + "0" * 64
PROJECT = """
[project]
dependencies = ["Fine-Package>=1"]
[project.optional-dependencies]
server = ["other[binary]>=2; python_version < '4'"]
[dependency-groups]
dev = []
"""
FINE = f"# made by a tool\nfine-package==1.5 \\\n    --hash={HASH}\nother==2.0 ; python_version < '4' \\\n    --hash={HASH}\n"
ADVISORY = {
    "id": "PYSEC-0000-1",
    "summary": "It gives everything away.",
    "modified": "2026-01-01T00:00:00Z",
    "published": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "other", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0.1"}]}],
        }
    ],
}


class _Service(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps(self.answers.get(asked["package"]["name"], {})).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def service(**answers: Any) -> Iterator[str]:
    """An advisory service that knows these packages."""
    handler = type("Handler", (_Service,), {"answers": answers})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "requirements.lock").write_text(FINE)
    return tmp_path


def audit(folder: Path, url: str, *flags: str) -> int:
    return main([str(folder), "--osv-url", url, *flags])


def test_a_known_vulnerability_fails_and_is_named_with_what_fixes_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with service(other={"vulns": [ADVISORY]}) as url:
        assert audit(project, url) == 1
    assert capsys.readouterr().out == "other 2.0: PYSEC-0000-1, fixed in 2.0.1\n"


def test_a_service_that_is_away_or_speaks_another_format_is_told_of_and_fails_where_it_is_required(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with service(**{"fine-package": {"vulns": "another format"}}) as url:
        assert audit(project, url) == 0
    assert "WARNING: not audited for known vulnerabilities: " in capsys.readouterr().out
    assert audit(project, f"http://127.0.0.1:{free_port()}/v1/query", "--require") == 1
    assert "WARNING: not audited for known vulnerabilities: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lock", "problem"),
    [
        (FINE.replace("==1.5", ">=1.5"), "fine-package is not pinned to one version"),
        (FINE.replace("==1.5", "==1.*"), "fine-package is not pinned to one version"),
        (FINE.replace(f"    --hash={HASH}\nother", "\nother"), "fine-package has no SHA-256"),
        (FINE.replace("sha256", "md5"), "fine-package has no SHA-256"),
        (FINE.replace("==1.5", "==0.9"), "asks for Fine-Package>=1; the lock has 0.9"),
        (FINE.partition("other")[0], "the lock has nothing: run make lock"),
        ("", "the lock is empty"),
    ],
)
def test_what_is_not_held_fast_fails_without_asking_anybody(
    project: Path, lock: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "requirements.lock").write_text(lock)
    assert audit(project, "http://127.0.0.1:9/never-asked") == 1
    assert problem in capsys.readouterr().out


def test_our_own_lock_is_read_whole_and_holds_everything_fast() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    packages = locked(lock)
    named = re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)
    assert [one.requirement.name for one in packages] == named
    assert sum(len(one.hashes) for one in packages) == lock.count("--hash=")
    assert [*loose(packages, tomllib.loads((ROOT / "pyproject.toml").read_text()))] == []
