"""docs/serving.md: what it tells to type is typed; its files fit the program."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from models_for_tests import LABELS, classifier, write_images
from native_for_tests import run
from serve_for_tests import Server

import convship

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
FILES = ROOT / "docs/serving"
PROGRAM = "/opt/convship/bin/convship-run"


@pytest.fixture(scope="module")
def options() -> set[str]:
    return set(re.findall(r"--[\w-]+", run("serve", "--help").stdout))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Holds the model and the photograph that the commands mention."""
    (image, *_) = write_images(tmp_path, 1)
    network, preprocess = classifier()
    convship.export_model(
        network, tmp_path / "model.pt", samples=[image], preprocess=preprocess, labels=LABELS
    )
    image.rename(tmp_path / "cat.jpg")
    return tmp_path


def test_commands_work_as_they_stand(folder):
    """In the order of the text; only the ports are others."""
    blocks = re.findall(r"```(sh|python)\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 7
    outputs = []
    with ExitStack() as stack:
        ports: dict[str, int] = {}
        for language, block in blocks:
            *lines, last = block.splitlines()
            if last.startswith("convship-run serve"):
                words = shlex.split(last)[2:]
                at = words.index("--port")
                subprocess.run(["bash", "-euc", "\n".join(lines)], cwd=folder, check=True)
                server = Server(*words[:at], *words[at + 2 :], cwd=folder)
                ports[words[at + 1]] = stack.enter_context(server).port
                continue
            for port, real in ports.items():
                block = block.replace(f":{port}", f":{real}")
            command = ["bash", "-euc"] if language == "sh" else [sys.executable, "-Wignore", "-c"]
            result = subprocess.run(
                [*command, block], cwd=folder, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, (block, result.stdout, result.stderr)
            outputs.append(result.stdout)
    predictions = convship.load(folder / "model.pt").predict(folder / "cat.jpg", top_k=3)
    first, _ = json.JSONDecoder().raw_decode(outputs[0])
    assert [each["label"] for each in first["predictions"]] == [p.label for p in predictions]
    assert '"outputs":[{"name":"logits"' in outputs[1]
    assert outputs[2].count("[") == 3  # two rows
    assert "convship_requests_total" in outputs[-1]


def test_options_and_links_of_the_text_exist(options):
    mentioned = set(re.findall(r"`[^`\n]*?(--[a-z][\w-]+)", TEXT))
    assert len(mentioned) > 12
    assert mentioned <= options
    for link in re.findall(r"\]\((?!https?://|#)([^)]+)\)", TEXT):
        assert (ROOT / "docs" / link).exists(), link


def test_limits_of_the_text_are_the_defaults():
    text = run("serve", "--help").stdout
    rows = re.findall(r"`(--[\w-]+)` \((\d+)", TEXT)
    assert len(rows) >= 8
    for option, default in rows:
        assert re.search(rf"{option} .*={default}\n", text), option


def test_every_metric_of_the_text_exists(folder):
    with Server(folder / "model.pt") as server:
        text = server.get("/metrics").body.decode()
    for name in set(re.findall(r"`(convship_\w+)`", TEXT)):
        assert f"# TYPE {name} " in text, name


def check_arguments(words: list[str], options: set[str]) -> dict[str, str]:
    """All options are known; return their values."""
    given = [word for word in words if word.startswith("--")]
    assert given
    assert set(given) <= options
    return {word: words[words.index(word) + 1] for word in given}


def stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile's instructions, by stage."""
    text = (FILES / "Dockerfile").read_text(encoding="utf-8")
    found: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, rest = line.split(" ", 1)
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


def test_dockerfile_builds_with_what_is_there_and_leaves_python_behind(options):
    build, final = stages()
    commands = [rest for name, rest in build if name == "RUN"]
    for script in re.findall(r"scripts/\w+", " ".join(commands)):
        assert os.access(ROOT / script, os.X_OK)
    assert "scripts/package" in commands[-1]
    archive = re.search(r"dist/(\S+)", commands[-1])[1]
    package = (ROOT / "scripts/package.py").read_text(encoding="utf-8")
    # convship-VERSION-linux-ARCH.tar.gz
    assert 'name = f"convship-{version}-linux-' in package
    assert archive == "convship-*.tar.gz"
    values = dict(final)
    assert "python" not in " ".join(rest for _, rest in final)
    assert not [name for name, _ in final if name == "RUN"]
    assert values["COPY"] == "--from=build /out /opt/convship"
    assert values["USER"] == "65534:65534"
    program, verb, *words = json.loads(values["ENTRYPOINT"])
    assert (program, verb) == (PROGRAM, "serve")
    assert check_arguments(words, options) == {"--host": "0.0.0.0", "--port": values["EXPOSE"]}
    ignored = (FILES / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert {".venv", "build", ".git"} <= set(ignored)


def test_archive_puts_the_program_where_the_files_expect_it():
    package = (ROOT / "scripts/package.py").read_text(encoding="utf-8")
    assert f'tree / "{PROGRAM.removeprefix("/opt/convship/")}"' in package


def test_systemd_unit_fits_the_program(options, tmp_path):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # systemd's names have capitals
    unit.read(FILES / "convship.service")
    service = unit["Service"]
    program, verb, *words = shlex.split(service["ExecStart"])
    assert (program, verb) == (PROGRAM, "serve")
    values = check_arguments(words, options)
    assert float(values["--drain-timeout"]) < float(service["TimeoutStopSec"])
    assert values["--api-key-file"] == f"%d/{service['LoadCredential'].split(':')[0]}"
    if shutil.which("systemd-analyze"):
        text = (FILES / "convship.service").read_text(encoding="utf-8")
        copy = tmp_path / "convship.service"  # the archive is not installed on this machine
        copy.write_text(text.replace(PROGRAM, "/bin/true"), encoding="utf-8")
        result = subprocess.run(
            ["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False
        )
        assert "convship.service" not in result.stderr, result.stderr


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FILES / name).read_text(encoding="utf-8")))


def check_container(container: dict[str, Any], options: set[str], folder: Path) -> dict[str, str]:
    """Probes are answered, ports are those that the image listens on."""
    (model, *words) = container["args"]
    name = model.split("=")[0]
    (port,) = container["ports"]
    exposed = dict(stages()[1])["EXPOSE"]
    assert str(port["containerPort"]) == exposed
    with Server(f"{name}={folder / 'model.pt'}") as server:
        for probe in ("readinessProbe", "livenessProbe"):
            if probe in container:
                get = container[probe]["httpGet"]
                assert get["port"] in (port.get("name"), port["containerPort"])
                assert server.get(get["path"]).status == 200
    mounts = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
    paths = [word for word in (model.split("=")[1], *words) if word.startswith("/")]
    for path in paths:
        assert any(path.startswith(f"{mount}/") for mount in (*mounts, "/mnt/models"))
    return check_arguments(words, options) if words else {}


def test_kubernetes_manifest_fits_the_program(options, folder):
    deployment, service = documents("kubernetes.yaml")
    assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    (container,) = template["spec"]["containers"]
    values = check_container(container, options, folder)
    assert float(values["--drain-timeout"]) < template["spec"]["terminationGracePeriodSeconds"]
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    annotations = template["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(container["ports"][0]["containerPort"])


def test_kserve_manifest_fits_the_program(options, folder):
    (service,) = documents("kserve.yaml")
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["kind"] == "InferenceService"
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["name"] == "kserve-container"
    check_container(container, options, folder)
    (storage,) = container["env"]
    assert storage["name"] == "STORAGE_URI"
    assert Path(storage["value"]).name == Path(container["args"][0]).name
