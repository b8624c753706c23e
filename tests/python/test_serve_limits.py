"""convship-run serve against hostile, slow and unwelcome clients: it refuses them, and goes on."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from models_for_tests import LABELS, classifier, write_images
from serve_for_tests import Server

import convship


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def image(folder) -> bytes:
    return write_images(folder, 1)[0].read_bytes()


@pytest.fixture(scope="module")
def model(folder, image) -> Path:
    network, preprocess = classifier()
    path = folder / "lenet.pt"
    convship.export_model(
        network, path, samples=[next(folder.glob("*.png"))], preprocess=preprocess, labels=LABELS
    )
    return path


@pytest.fixture(scope="module")
def server(model):
    with Server(model, "--max-body-mib", 1, "--max-batch", 4) as server:
        yield server
        assert server.stop() == 0


SHAPE = [1, 3, 32, 32]
ELEMENTS = 3 * 32 * 32
INFER = "/v2/models/lenet/infer"


def body(**changes: object) -> dict[str, object]:
    """A good request with some of its input's fields changed; None takes one away."""
    given = {
        "name": "input",
        "datatype": "FP32",
        "shape": SHAPE,
        "data": [0.5] * ELEMENTS,
        **changes,
    }
    return {"inputs": [{key: value for key, value in given.items() if value is not None}]}


def good(**more: object) -> dict[str, object]:
    return {**body(), **more}


HOSTILE_JSON = {
    "empty": ("", "must be JSON"),
    "no JSON": ("{", "must be JSON"),
    "an array": ("[]", "the request must be a JSON object, got an array"),
    "a number": ("7", "the request must be a JSON object, got 7"),
    "not UTF-8": (b'{"id": "\xff"}', "must be JSON"),
    "NaN": (json.dumps(body(data=[float("nan")] * ELEMENTS)), "must be JSON"),
    "infinity": (json.dumps(body(data=[float("inf")] * ELEMENTS)), "must be JSON"),
    "1e999": (json.dumps(good()).replace("0.5]", "1e999]"), "must be JSON"),
    "1e300 as FP32": (json.dumps(good()).replace("0.5]", "1e300]"), "must fit FP32"),
    "nesting": ('{"inputs":' + "[" * 100_000, "must be an object"),
    "nested data": ('{"inputs":[{"data":' + "[" * 100_000, "must not nest deeper"),
    "nested nonsense": ('{"x":' + '{"x":' * 100_000, "must not nest deeper"),
    "no inputs": ({}, "the inputs must be input, each once; got 0"),
    "inputs no array": ({"inputs": {}}, "inputs must be an array, got an object"),
    "input no object": ({"inputs": [1]}, "must be an object, got 1"),
    "two inputs": ({"inputs": body()["inputs"] * 2}, "each once; got 'input'"),
    "unknown input": (body(name="y"), "the inputs must be input, each once; got 'y'"),
    "no name": (body(name=None), "each once; got ''"),
    "name a number": (body(name=1), "an input's name must be a string, got 1"),
    "no shape": (body(shape=None), "the shape must be [-1, 3, 32, 32]"),
    "wrong shape": (body(shape=[1, 3, 32, 31]), "got [1, 3, 32, 31]"),
    "wrong rank": (body(shape=[3, 32, 32]), "got [3, 32, 32]"),
    "negative": (body(shape=[-1, 3, 32, 32]), "got [-1, 3, 32, 32]"),
    "huge": (body(shape=[2**62, 3, 32, 32]), "(-1: any size), got [4611686018427387904"),
    "huge, no overflow": (body(shape=[2**40, 3, 32, 32]), "elements for the shape"),
    "fraction of a size": (body(shape=[1.5, 3, 32, 32]), "must be integers, got 1.5"),
    "too little data": (body(data=[0] * 7), "the data must hold 3072 elements"),
    "too much data": (body(data=[0] * 3073), "got 3073"),
    "no data": (body(data=None), "either data or parameters.binary_data_size, got neither"),
    "strings": (body(data=["a"] * ELEMENTS), "the data must be numbers or booleans"),
    "null": (body(data=[None] * ELEMENTS), "the data must be numbers or booleans, got null"),
    "booleans": (body(data=[True] * ELEMENTS), "must be numbers for FP32, got booleans"),
    "wrong datatype": (body(datatype="INT32"), "the datatype must be FP32, got INT32"),
    "no datatype": (body(datatype=None), "the datatype must be FP32, got none"),
    "unknown datatype": (body(datatype="BYTES"), "must be FP32, got BYTES"),
    "unknown output": (good(outputs=[{"name": "y"}]), "the outputs are logits; got 'y'"),
    "classification": (
        good(outputs=[{"name": "logits", "parameters": {"classification": 2}}]),
        "the classification extension is not served",
    ),
    "too many rows": (body(shape=[5, 3, 32, 32], data=[0] * 5 * ELEMENTS), "at most 4 rows"),
    "binary size without binary data": (
        body(data=None, parameters={"binary_data_size": 4 * ELEMENTS}),
        "12288 more bytes of binary data, got 0",
    ),
    "negative binary size": (
        body(data=None, parameters={"binary_data_size": -1}),
        "binary_data_size must be 12288",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_json_fails(server, name):
    text, message = HOSTILE_JSON[name]
    answer = server.post(INFER, text)
    assert answer.status == 400, answer.body
    assert message in answer.json["error"]
    assert server.post(INFER, good()).status == 200


def binary_request(tail: bytes, length: str | None = None, declared: int = 4 * ELEMENTS):
    head = json.dumps(body(data=None, parameters={"binary_data_size": declared})).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(head))}
    return head + tail, headers


@pytest.mark.parametrize(
    ("tail", "length", "declared", "message"),
    [
        (b"\0" * 100, None, 4 * ELEMENTS, "12288 more bytes of binary data, got 100"),
        (b"\0" * (4 * ELEMENTS + 1), None, 4 * ELEMENTS, "got 1 bytes more"),
        (b"\0" * 4 * ELEMENTS, None, 2**62, "binary_data_size must be 12288"),
        (b"\0" * 4 * ELEMENTS, "-1", 4 * ELEMENTS, "must be the length of the JSON"),
        (b"\0" * 4 * ELEMENTS, "99999999999999999999", 4 * ELEMENTS, "must be the length"),
        (b"\0" * 4 * ELEMENTS, "7", 4 * ELEMENTS, "must be JSON"),
        (b"\0" * 4 * ELEMENTS, "x", 4 * ELEMENTS, "must be the length of the JSON"),
    ],
)
def test_hostile_binary_data_fails(server, tail, length, declared, message):
    data, headers = binary_request(tail, length, declared)
    answer = server.post(INFER, data, headers=headers)
    assert answer.status == 400, answer.body
    assert message in answer.json["error"]


def test_not_a_number_is_a_number_in_binary_and_none_in_json(server, model):
    x = torch.full(tuple(SHAPE), float("nan"))
    data, headers = binary_request(x.numpy().tobytes())
    refused = server.post(INFER, data, headers=headers)
    assert refused.status == 422
    assert "holds NaN, which JSON cannot say" in refused.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nowhere", 404, "there is no such path: /nowhere"),
        ("GET", "/v2/models/none", 404, "there is no model 'none'"),
        ("GET", "/v2/models/lenet/versions/2", 404, "'lenet' of version 2"),
        ("GET", "/v2/models/lenet/versions/1/ready/x", 404, "no such path"),
        ("GET", "/v2/models//infer", 404, "no such path"),
        ("GET", INFER, 405, "takes POST, got GET"),
        ("POST", "/metrics", 405, "takes GET, HEAD, got POST"),
        ("DELETE", "/v2/models/lenet", 405, "got DELETE"),
        ("POST", "/predict?top_k=0", 400, "top_k must be an integer of at least 1"),
        ("POST", "/predict?top_k=99999999999", 400, "top_k must be an integer"),
        ("POST", "/predict?k=1", 400, "the query must be top_k=K, got 'k=1'"),
        ("POST", "/predict", 400, "the bytes of a JPEG or PNG image, got none"),
    ],
)
def test_wrong_paths_and_methods_fail(server, method, path, status, message):
    answer = server.request(method, path)
    assert answer.status == status
    assert message in answer.json["error"]


def test_bodies_of_another_kind_fail(server, image):
    form = server.post("/predict", image, headers={"Content-Type": "multipart/form-data"})
    assert (form.status, "send the file as it is" in form.json["error"]) == (415, True)
    packed = server.post(INFER, good(), headers={"Content-Encoding": "gzip"})
    assert (packed.status, "must not be compressed" in packed.json["error"]) == (415, True)


def raw(server: Server, request: bytes) -> bytes:
    """The whole reply to bytes that no client library would send."""
    with server.socket() as client:
        client.sendall(request)
        reply = b""
        while part := client.recv(65536):
            reply += part
        return reply


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, 400),
        (b"GET /v2 HTTP/1.1\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"POST /predict HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (
            b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"100000\r\n"
            + b"a" * 0x100000
            + b"\r\n1\r\na\r\n0\r\n\r\n",
            413,
        ),
    ],
    ids=range(10),
)
def test_bytes_that_are_no_good_http_fail(server, request_, status):
    reply = raw(server, request_)
    assert reply.startswith(b"HTTP/1.1 %d " % status), reply[:200]
    assert "error" in json.loads(reply.split(b"\r\n\r\n", 1)[1])


def test_body_beyond_the_limit_is_refused_while_it_is_sent(server, image):
    answer = server.post("/predict", b"a" * (1 << 20) + b"a")
    assert answer.status == 413
    assert "--max-body-mib" in answer.json["error"]
    at_the_limit = server.post("/predict", image + b"\0" * ((1 << 20) - len(image)))
    assert at_the_limit.status == 200


def test_chunks_pipelines_and_expectations_are_understood(server, image):
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (image[:9], image[9:]))
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    requests = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n"
    requests += head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(image) + image
    requests += b"GET /v2/health/live HTTP/1.1\r\nConnection: close\r\n\r\n"
    reply = raw(server, requests)
    assert reply.count(b"HTTP/1.1 200 OK") == 3
    assert reply.count(b"HTTP/1.1 100 Continue") == 1


def test_memory_stays_where_it_was_under_hostile_requests(server, image):
    texts = [
        text if isinstance(text, (str, bytes)) else json.dumps(text)
        for text, _ in HOSTILE_JSON.values()
    ]
    texts.append(json.dumps(body(shape=[4, 3, 32, 32], data=[0.25] * 4 * ELEMENTS)))
    texts.append('{"inputs":[{"name":"input","data":[' + "0," * 500_000 + "0]}]}")

    def storm(rounds: int) -> int:
        for _ in range(rounds):
            for text in texts:
                server.post(INFER, text)
            server.post("/predict", image[:-9])
            server.post("/predict", b"a" * (1 << 20))
        return server.resident_kib()

    settled = storm(4)
    assert storm(12) - settled < 16 * 1024
    assert server.metric("convship_buffered_bytes") == 0


def test_full_queue_sends_clients_away_for_a_moment(model, image):
    # Two wait for company that does not come; the third is one too many.
    options = ("--max-queue", 2, "--max-delay-us", 10_000_000, "--max-batch", 8)
    with Server(model, *options) as server:
        waiting = [threading.Thread(target=server.post, args=("/predict", image)) for _ in range(2)]
        for thread in waiting:
            thread.start()
        while server.metric("convship_queue_depth") < 2:
            time.sleep(0.01)
        answer = server.post("/predict", image)
        assert answer.status == 429
        assert answer.headers["Retry-After"] == "1"
        assert "the queue is full (--max-queue 2)" in answer.json["error"]
        assert server.get("/v2/health/ready").status == 200
        assert server.metric("convship_rejected_total", reason="queue_full") == 1
        assert server.stop() == 0
        for thread in waiting:
            thread.join()


def test_slow_clients_keep_nobody_waiting(model, image):
    options = ("--max-connections", 16, "--read-timeout", 2, "--idle-timeout", 1)
    with Server(model, *options) as server, ExitStack() as stack:
        # Three times as many as the server takes: the oldest must go.
        for number in range(48):
            last = stack.enter_context(server.socket())
            head = b"POST /predict HTTP/1.1\r\nContent-Length: 1000\r\n"
            last.sendall(head if number % 2 else head + b"\r\nabc")
        assert server.post("/predict", image).status == 200
        assert server.metric("convship_connections") <= 17
        # A byte now and then is not enough: the time is for the whole request.
        begin = time.monotonic()
        last.settimeout(0.2)
        reply = b""
        while not reply.startswith(b"HTTP/1.1 408"):
            assert time.monotonic() - begin < 20
            try:
                reply += last.recv(4096)
                last.sendall(b"x")
            except TimeoutError:
                last.sendall(b"x")
        # One that rests is let go in silence.
        with server.socket() as idle:
            idle.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
            reply = b""
            while part := idle.recv(4096):
                reply += part
            assert reply.count(b"HTTP/1.1") == 1
        assert server.post("/predict", image).status == 200
        assert server.stop() == 0


def test_client_that_does_not_read_its_reply_is_cut(model):
    def ask_without_end(client: socket.socket) -> None:
        while True:
            client.sendall(b"GET /page.js HTTP/1.1\r\n\r\n")

    with Server(model, "--write-timeout", 1) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((server.host, server.port))
        client.settimeout(0.5)
        with pytest.raises((TimeoutError, ConnectionError)):
            ask_without_end(client)
        deadline = time.monotonic() + 20
        while server.metric("convship_connections") > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_api_key_is_asked_for(model, image, folder):
    keys = folder / "keys"
    keys.write_text("first key\nsecond\n")
    with Server(model, "--api-key-file", keys) as server:
        for path in ("/v2", "/metrics", "/v2/models/lenet/card", "/v2/models/none", "/nowhere"):
            assert server.get(path).status == 401, path
        for key in ("first", "Bearer", "Bearer ", "Bearer first", "Basic second"):
            answer = server.post("/predict", image, headers={"Authorization": key})
            assert answer.status == 401, key
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        for key in ("Bearer first key", "bearer second"):
            headers = {"Authorization": key}
            assert server.post("/predict", image, headers=headers).status == 200
        # What says nothing of the models, for probes and for the page that asks for the key.
        for path in ("/v2/health/live", "/v2/health/ready", "/", "/page.js"):
            assert server.get(path).status == 200, path
        assert server.stop() == 0
        assert not any("second" in json.dumps(line) for line in server.log)


@pytest.fixture(scope="module")
def certificate(folder) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    subprocess.run(
        [*command, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    return certificate, key


def test_tls(model, image, certificate):
    context = ssl.create_default_context(cafile=certificate[0])
    options = ("--tls-certificate", certificate[0], "--tls-key", certificate[1])
    with Server(model, *options, "--read-timeout", 2, context=context) as server:
        assert server.url.startswith("https://")
        assert server.post("/predict", image).status == 200
        # Who speaks plainly, or not at all, is cut.
        assert raw(server, b"GET /v2 HTTP/1.1\r\n\r\n")[:1] in (b"", b"\x15")
        with server.socket() as silent:
            assert silent.recv(1) == b""
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        with server.socket() as client, old.wrap_socket(client) as secure:
            assert secure.version() == "TLSv1.2"
        assert server.get("/v2/health/live").json == {"live": True}
        assert server.stop() == 0


def test_tls_files_that_do_not_fit_fail(model, certificate, folder):
    from native_for_tests import run

    options = ("--tls-certificate", certificate[1], "--tls-key", certificate[1])
    result = run("serve", model, *options, timeout=60)
    assert result.returncode == 2
    assert "the TLS certificate must be a PEM file" in result.stderr
