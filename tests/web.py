"""A web server with a folder of files, as people have one: nginx, or what stands in for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.waiting import block_until

NGINX = shutil.which("nginx", path="/usr/sbin:" + os.environ.get("PATH", ""))
KINDS = ["nginx", "python"] if NGINX else ["python"]
RANGE_SERVER = Path(__file__).with_name("range_server.py")
ROOT = RANGE_SERVER.parents[1]

CONFIG = """
worker_processes 1;
user root;
daemon off;
pid {work}/pid;
error_log {work}/error.log;
events {{ worker_connections 1024; }}
http {{
  log_format sent '$body_bytes_sent $status $http_range $uri $remote_addr $msec';
  access_log {work}/log sent;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fast; uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  {limits}
  server {{ listen {listen}; root {root}; {options} }}
}}
"""

Popen = Callable[..., subprocess.Popen[bytes]]


class WebServer:
    """A running server; the lines of its log begin with the bytes of a body."""

    def __init__(self, host: str, port: int, work: Path, scheme: str) -> None:
        self.host = host
        self.port = port
        self.scheme = scheme
        self._work = work

    def url(self, path: str) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/{path}"

    @property
    def log(self) -> list[str]:
        with suppress(FileNotFoundError):
            return (self._work / "log").read_text().splitlines()
        return []

    @property
    def sent(self) -> int:
        """Bytes of files that went out."""
        return sum(int(line.split()[0]) for line in self.log)


@contextmanager
def web_server(
    root: Path,
    work: Path,
    *,
    kind: str = KINDS[0],
    host: str = "127.0.0.1",
    port: int = 0,
    popen: Popen = subprocess.Popen,
    options: str = "",
    limits: str = "",
    tls: Path | None = None,
) -> Iterator[WebServer]:
    """Serve the files below `root`; `work` is a folder for the server's own.

    `options` and `limits` are lines of nginx's configuration, in its `server` and its
    `http`; `tls` is a folder with cert.pem and key.pem, for nginx too.
    """
    work.mkdir(exist_ok=True)
    port = port or free_port(host)
    if kind == "nginx":
        assert NGINX
        listen = f"{host}:{port}"
        if tls is not None:
            listen += " ssl http2"
            options += f" ssl_certificate {tls}/cert.pem; ssl_certificate_key {tls}/key.pem;"
        config = work / "nginx.conf"
        text = CONFIG.format(work=work, root=root, listen=listen, options=options, limits=limits)
        config.write_text(text)
        argv = [NGINX, "-p", str(work), "-e", str(work / "error.log"), "-c", str(config)]
    else:
        argv = [sys.executable, str(RANGE_SERVER), host, str(port), str(root), str(work / "log")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (work / "stderr").open("wb") as stderr:
        settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": stderr, "env": environment}
        process = popen(argv, **settings)
    server = WebServer(host, port, work, "https" if tls else "http")
    try:
        if kind == "nginx":  # it tells by its log that it listens where nobody here can connect
            block_until(lambda: (work / "pid").exists() or process.poll() is not None, 20)
        else:
            assert process.stdout is not None
            assert process.stdout.readline(), (work / "stderr").read_text()
        assert process.poll() is None, (work / "error.log").read_text()
        yield server
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
