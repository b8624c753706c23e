"""convship-run serve: what clients of the Open Inference Protocol, people and Prometheus get."""

from __future__ import annotations

import json
import os
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from models_for_tests import LABELS, LoopAndBranch, classifier, write_images
from native_for_tests import run
from serve_for_tests import Server
from torch import Tensor, nn

import convship

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of gevent's, on newer Pythons
    import tritonclient.http as triton
    from tritonclient.utils import np_to_triton_dtype


class ManyTypes(nn.Module):
    """Every datatype goes in and comes out; the sizes of each are its own."""

    def forward(
        self,
        real: Tensor,
        double: Tensor,
        half: Tensor,
        brain: Tensor,
        big: Tensor,
        int32: Tensor,
        int16: Tensor,
        int8: Tensor,
        byte: Tensor,
        flag: Tensor,
    ) -> dict[str, Tensor]:
        return {
            "real": real + 1,
            "double": double + 1,
            "half": half + 1,
            "brain": brain + 1,
            "big": big + 1,
            "int32": int32 + 1,
            "int16": int16 + 1,
            "int8": int8 + 1,
            "byte": byte + 1,
            "flag": ~flag,
        }


TYPES = {
    "real": torch.float32,
    "double": torch.float64,
    "half": torch.float16,
    "brain": torch.bfloat16,
    "big": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "byte": torch.uint8,
    "flag": torch.bool,
}


def many_tensors() -> dict[str, Tensor]:
    base = torch.tensor([[0.0, 1.5, -3.25], [1e-3, 7.0, 100.0]])
    return {
        name: (base > 1 if dtype == torch.bool else base.abs().to(dtype))
        for name, dtype in TYPES.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def images(folder) -> list[Path]:
    return write_images(folder, 8)


@pytest.fixture(scope="module")
def models(folder, images) -> dict[str, Path]:
    network, preprocess = classifier()
    paths = {name: folder / f"{name}.pt" for name in ("lenet", "loop", "types")}
    convship.export_model(
        network, paths["lenet"], samples=images[:1], preprocess=preprocess, labels=LABELS
    )
    convship.export_model(
        LoopAndBranch(), paths["loop"], samples=[(torch.rand(2, 4), torch.tensor(3))]
    )
    convship.export_model(ManyTypes(), paths["types"], samples=[tuple(many_tensors().values())])
    return paths


@pytest.fixture(scope="module")
def server(models):
    with Server(*models.values()) as server:
        yield server
        assert server.stop() == 0


@pytest.fixture
def client(server):
    client = triton.InferenceServerClient(f"{server.host}:{server.port}")
    yield client
    client.close()


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def infer_body(x: Tensor, **more: object) -> dict[str, object]:
    tensor = {"name": "input", "datatype": "FP32", "shape": list(x.shape), "data": x.tolist()}
    return {"inputs": [tensor], **more}


def test_health_and_metadata(server, client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("lenet")
    assert client.is_model_ready("lenet", "1")
    assert not client.is_model_ready("lenet", "2")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata() == {
        "name": "convship",
        "version": convship.__version__,
        "extensions": ["binary_tensor_data"],
    }
    assert client.get_model_metadata("lenet") == {
        "name": "lenet",
        "versions": ["1"],
        "platform": "convship_torchscript",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 32, 32]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, len(LABELS)]}],
    }
    states = {each["name"]: each["state"] for each in client.get_model_repository_index()}
    assert states == {"lenet": "READY", "loop": "READY", "types": "READY"}
    assert server.get("/v2/models").json == {"models": ["lenet", "loop", "types"]}


def test_head_tells_what_get_would(server):
    answer, head = server.get("/v2"), server.request("HEAD", "/v2")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(answer.body))


@pytest.mark.parametrize("binary_input", [False, True])
@pytest.mark.parametrize("binary_output", [False, True])
def test_triton_client_gets_the_bits_of_python(models, client, binary_input, binary_output):
    x = rows(3)
    expected = convship.load(models["lenet"]).run(x)["logits"].numpy()
    given = triton.InferInput("input", list(x.shape), "FP32")
    given.set_data_from_numpy(x.numpy(), binary_data=binary_input)
    wanted = triton.InferRequestedOutput("logits", binary_data=binary_output)
    for outputs in ([wanted], None):
        result = client.infer("lenet", [given], outputs=outputs, request_id="seven")
        assert result.get_response()["id"] == "seven"
        answer = result.as_numpy("logits")
        assert answer.dtype == np.float32
        assert answer.tobytes() == expected.tobytes()


def test_every_datatype_in_binary(models, client):
    tensors = many_tensors()
    inputs = []
    for name, tensor in tensors.items():
        numbers = numpy_of(tensor)
        datatype = np_to_triton_dtype(numbers.dtype)
        inputs.append(triton.InferInput(name, list(tensor.shape), datatype))
        inputs[-1].set_data_from_numpy(numbers)
    expected = convship.load(models["types"]).run(**tensors)
    # The order of the inputs is the client's affair.
    result = client.infer("types", inputs[::-1])
    for name, tensor in expected.items():
        assert result.as_numpy(name).tobytes() == numpy_of(tensor).tobytes(), name


def numpy_of(tensor: Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.float().numpy().astype(ml_dtypes.bfloat16)
    return tensor.numpy()


def test_datatypes_that_json_can_say(server, models):
    tensors = many_tensors()
    server_types = {"real": "FP32", "double": "FP64", "big": "INT64", "int32": "INT32"}
    server_types |= {"int16": "INT16", "int8": "INT8", "byte": "UINT8", "flag": "BOOL"}
    binary = {"half": "FP16", "brain": "BF16"}
    inputs = [
        {"name": name, "datatype": kind, "shape": [2, 3], "data": tensors[name].tolist()}
        for name, kind in server_types.items()
    ]
    tail = b""
    for name, kind in binary.items():
        inputs.append({"name": name, "datatype": kind, "shape": [2, 3]})
        inputs[-1]["parameters"] = {"binary_data_size": 12}
        tail += tensors[name].view(torch.int16).numpy().tobytes()
    outputs = [{"name": name} for name in server_types]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = server.post("/v2/models/types/infer", head + tail, headers=headers)
    assert answer.status == 200, answer.body
    expected = convship.load(models["types"]).run(**tensors)
    got = {each["name"]: each["data"] for each in answer.json["outputs"]}
    assert got == {name: expected[name].flatten().tolist() for name in server_types}
    # Half precision has no form in JSON.
    body = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(body))}
    refused = server.post("/v2/models/types/infer", body + tail, headers=headers)
    assert refused.status == 422
    assert "FP16; ask for binary data" in refused.json["error"]


def test_control_flow_and_scalars(server, models):
    x, steps = torch.rand(2, 4), torch.tensor(5)
    body = {
        "inputs": [
            {"name": "steps", "datatype": "INT64", "shape": [], "data": [5]},
            {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": x.flatten().tolist()},
        ],
        "outputs": [{"name": "x"}],
    }
    answer = server.post("/v2/models/loop/versions/1/infer", body)
    assert answer.status == 200, answer.body
    (output,) = answer.json["outputs"]
    expected = convship.load(models["loop"]).run(x, steps)["x"]
    assert np.float32(output["data"]).tobytes() == expected.numpy().tobytes()


@pytest.mark.parametrize("path", ["/predict", "/v2/models/lenet/predict"])
def test_predict_gives_the_probabilities_of_python(server, models, images, path):
    model = convship.load(models["lenet"])
    for image in images:
        answer = server.post(f"{path}?top_k=3", image.read_bytes())
        assert answer.status == 200, answer.body
        expected = [
            {"label": p.label, "index": p.index, "probability": p.probability}
            for p in model.predict(image, top_k=3)
        ]
        assert answer.json["predictions"] == expected
        assert answer.json["model_name"] == "lenet"


def all_at_once(server: Server, bodies: list[object], path: str) -> list[object]:
    gate = threading.Barrier(len(bodies))

    def ask(body: object):
        gate.wait()
        answer = server.post(path, body)
        assert answer.status == 200, answer.body
        return answer.json

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(ask, bodies))


def test_answers_do_not_depend_on_who_shared_the_call(models, images):
    """Tensors of one and two rows, and images: alone, and with the neighbours of a full batch."""
    tensors = [infer_body(rows(1 + seed % 2, seed)) for seed in range(6)]
    files = [image.read_bytes() for image in images]
    with Server(models["lenet"], "--max-batch", 1) as server:
        # A row at a time: there is no batch that could matter.
        alone = [server.post("/predict", each).json for each in files]
    model = convship.load(models["lenet"])
    options = ("--max-batch", 8, "--max-delay-us", 2_000_000, "--workers", 2)
    with Server(models["lenet"], *options) as server:
        assert server.wait_for("model_loaded")["batches"], server.log
        # 9 rows: a full call of up to 8, and the rest.
        together = all_at_once(server, tensors, "/v2/models/lenet/infer")
        for seed, answer in enumerate(together):
            (output,) = answer["outputs"]
            expected = model.run(rows(1 + seed % 2, seed))["logits"]
            assert output["shape"] == list(expected.shape)
            assert np.float32(output["data"]).tobytes() == expected.numpy().tobytes()
        assert all_at_once(server, files, "/predict") == alone
        calls = server.metric("convship_batch_size_count", model="lenet")
        assert server.metric("convship_batch_size_sum", model="lenet") == 9 + len(files)
        assert calls <= 4
        assert server.stop() == 0


def test_a_bad_image_costs_its_neighbours_nothing(models, images):
    options = ("--max-batch", 4, "--max-delay-us", 2_000_000)
    with Server(models["lenet"], *options) as server:
        bodies = [images[0].read_bytes(), b"no image", images[1].read_bytes()[:-40]]
        bodies.append(images[2].read_bytes())
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda body: server.post("/predict", body), bodies))
        assert [each.status for each in answers] == [200, 400, 400, 200]
        assert "not a JPEG or PNG image" in answers[1].json["error"]
        assert all("image 2" not in each.body.decode() for each in answers)


def test_networks_that_libtorch_runs_in_part_get_requests_one_by_one(server):
    loaded = {line["model"]: line for line in server.log if line["event"] == "model_loaded"}
    assert loaded["lenet"]["batches"]
    assert not loaded["loop"]["batches"]
    assert loaded["loop"]["why_alone"] == "the first size of some input or output does not vary"


def test_card_names_the_file_that_runs(server, models):
    import hashlib

    card = server.get("/v2/models/lenet/card").json
    assert card["sha256"] == hashlib.sha256(models["lenet"].read_bytes()).hexdigest()
    assert card["labels"] == LABELS


def test_page_is_whole_and_confined(server):
    page = server.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        assert f'"{name}"' in page.body.decode()
        assert server.get(f"/{name}").headers["Content-Type"].startswith(kind)
    total = sum(len(server.get(path).body) for path in ("/", "/page.css", "/page.js"))
    assert total < 20_000
    everything = page.body + server.get("/page.js").body + server.get("/page.css").body
    assert b"http://" not in everything
    assert b"https://" not in everything


def test_metrics_count_what_happened(models, images):
    with Server(models["lenet"]) as server:
        before = server.metrics()
        assert before["convship_queue_depth", frozenset()] == 0
        for _ in range(3):
            server.post("/predict", images[0].read_bytes())
        server.post("/predict", b"no image")
        server.get("/nowhere")
        after = server.metrics()

        def value(name: str, **labels: str) -> float:
            return after[name, frozenset(labels.items())]

        assert value("convship_requests_total", model="lenet", code="200") == 3
        assert value("convship_requests_total", model="lenet", code="400") == 1
        assert value("convship_requests_total", model="", code="404") == 1
        seconds = "convship_request_duration_seconds"
        assert value(f"{seconds}_count", model="lenet") == 3
        assert value(f"{seconds}_bucket", model="lenet", le="+Inf") == 3
        assert 0 < value(f"{seconds}_sum", model="lenet") < 60
        assert value("convship_batch_size_count", model="lenet") >= 3
        assert value("process_resident_memory_bytes") > 1e7
        assert {name for name, _ in before} <= {name for name, _ in after}


def test_log_is_json_with_the_clients_request_id(server, images):
    answer = server.post("/predict", images[0].read_bytes(), headers={"X-Request-Id": "abc-7"})
    assert answer.headers["X-Request-Id"] == "abc-7"
    hostile = server.get("/v2", headers={"X-Request-Id": "a b\t"})
    assert hostile.headers["X-Request-Id"] != "a b\t"
    assert server.wait_for_request(hostile.headers["X-Request-Id"])["status"] == 200
    line = server.wait_for_request("abc-7")
    assert line["event"] == "request"
    assert (line["method"], line["path"], line["status"]) == ("POST", "/predict", 200)
    assert (line["model"], line["rows"]) == ("lenet", 1)
    assert line["ms"] > 0


def test_drain_answers_what_was_taken_and_refuses_what_is_new(models, images):
    # The delay would keep the request for a minute; the drain does not.
    with Server(models["lenet"], "--max-delay-us", 10_000_000) as server:
        idle = server.socket()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(server.post, "/predict", images[0].read_bytes())
            while server.metric("convship_queue_depth") < 1:
                pass
            server.process.send_signal(signal.SIGTERM)
            answer = waiting.result()
        assert answer.status == 200
        assert answer.headers["Connection"] == "close"
        assert idle.recv(1) == b""
        idle.close()
        assert server.process.wait(timeout=10) == 0
        assert server.wait_for("stopped")["finished"]
        with pytest.raises(ConnectionRefusedError):
            server.socket()


def test_drain_has_an_end(models):
    with Server(models["loop"], "--drain-timeout", 0.5) as server:
        # A call that takes for ever.
        body = {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [0] * 8},
                {"name": "steps", "datatype": "INT64", "shape": [], "data": [2**40]},
            ]
        }
        connection = server.connection()
        connection.request("POST", "/v2/models/loop/infer", json.dumps(body))
        while server.metric("convship_connections") < 2:
            pass
        assert server.stop() == 0
        assert not server.wait_for("stopped")["finished"]
        connection.close()


def test_listening_beyond_this_machine_is_said_in_the_log(models):
    with Server(models["lenet"], "--host", "0.0.0.0") as server:
        warning = server.wait_for("listening_beyond_loopback")
        assert warning["level"] == "warning"
        assert "no API key" in warning["message"]
        assert "unencrypted" in warning["message"]
        assert server.stop() == 0


def serve_fails(*arguments: object) -> tuple[int, str]:
    result = run("serve", *arguments, timeout=60)
    return result.returncode, result.stderr.splitlines()[-1]


def test_mistakes_at_the_start_fail(models, folder, server):
    lenet = models["lenet"]
    assert serve_fails(lenet, lenet) == (
        2,
        "convship-run: each model must have a name of its own, got 'lenet' twice; give them "
        "names: NAME=FILE",
    )
    code, message = serve_fails(f"a/b={lenet}")
    assert (code, "letters, digits" in message) == (2, True)
    code, message = serve_fails(lenet, "--port", server.port)
    assert (code, "cannot listen on 127.0.0.1 port" in message) == (5, True)
    code, message = serve_fails(lenet, "--tls-key", "key.pem")
    assert (code, "TLS needs both" in message) == (2, True)
    code, message = serve_fails(folder / "none.pt")
    assert (code, "none.pt" in message) == (3, True)
    plain = folder / "plain.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), plain)
    assert serve_fails(plain)[0] == 3
    empty = folder / "empty.keys"
    empty.write_text("\n")
    code, message = serve_fails(lenet, "--api-key-file", empty)
    assert (code, "there must be a key a line" in message) == (2, True)


def test_a_reader_of_the_log_that_stalls_does_not_stall_the_server(models, images):
    """The pipe holds 64 KiB; what does not fit is dropped and counted."""
    read, write = os.pipe()
    import subprocess

    from convship.verify import native_program

    process = subprocess.Popen(
        [native_program(), "serve", models["lenet"], "--port", "0"], stderr=write
    )
    os.close(write)
    text = b""
    while b'"listening"' not in text or not text.endswith(b"\n"):
        text += os.read(read, 1)
    url = json.loads(text.splitlines()[-1])["url"]
    port = int(url.rsplit(":", 1)[1])
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        for _ in range(8000):
            connection.request("GET", "/" + "x" * 300)
            assert connection.getresponse().read()
            connection.close()
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
        (dropped,) = [
            line for line in metrics.splitlines() if line.startswith("convship_log_lines_dropped")
        ]
        assert float(dropped.split()[1]) > 0
    finally:
        connection.close()
        process.kill()
        process.wait()
        os.close(read)
