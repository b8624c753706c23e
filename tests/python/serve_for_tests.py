"""`convship-run serve` as a process, and a plain HTTP client for it."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from convship.verify import native_program

PATIENCE = 60  # seconds until a test gives up


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A context that starts the server on a free port and stops it."""

    def __init__(
        self,
        *arguments: object,
        context: ssl.SSLContext | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.context = context
        self.log: list[dict[str, Any]] = []
        self._logged = threading.Condition()
        self.process = subprocess.Popen(
            [native_program(), "serve", *map(str, arguments), "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
        )
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        listening = self.wait_for("listening")
        self.url = listening["url"]
        self.host, port = re.fullmatch(r"https?://(.*):(\d+)", self.url).groups()
        self.port = int(port)

    def _read_log(self) -> None:
        for line in self.process.stderr:
            with self._logged:
                # Anything but JSON fails here, and with it every wait_for.
                self.log.append(json.loads(line))
                self._logged.notify_all()
        with self._logged:
            self.log.append({"event": "end of log"})
            self._logged.notify_all()

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first line of the log about that event."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.log if line["event"] in (event, "end of log")), None)

        with self._logged:
            assert self._logged.wait_for(lambda: found() is not None, PATIENCE), self.log
            line = found()
        assert line["event"] == event, self.log
        return line

    def wait_for_request(self, request_id: str) -> dict[str, Any]:
        """What the log says of a request."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.log if line.get("id") == request_id), None)

        with self._logged:
            assert self._logged.wait_for(lambda: found() is not None, PATIENCE), self.log
            return found()

    def connection(self) -> http.client.HTTPConnection:
        if self.context:
            return http.client.HTTPSConnection(
                self.host, self.port, timeout=PATIENCE, context=self.context
            )
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)

    def socket(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=PATIENCE)

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        connection = self.connection()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> Answer:
        return self.request("POST", path, body, **options)

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Samples by name and labels, as Prometheus' own parser reads them."""
        text = self.get("/metrics").body.decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics()[name, frozenset(labels.items())]

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def stop(self) -> int:
        """Ask it to end, as systemd and Kubernetes do; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stderr.close()
