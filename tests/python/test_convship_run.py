"""convship-run beside other programs: as a child process, for people with a broken machine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from models_for_tests import LABELS, classifier, write_images
from native_for_tests import run

import convship
from convship.verify import native_program

ROOT = Path(__file__).parents[2]
APPS = ROOT / "cpp/apps"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("child")


@pytest.fixture(scope="module")
def images(folder) -> list[Path]:
    return write_images(folder)


@pytest.fixture(scope="module")
def model(folder, images) -> Path:
    network, preprocess = classifier()
    path = folder / "model.pt"
    convship.export_model(network, path, samples=images[:1], preprocess=preprocess, labels=LABELS)
    return path


def test_stream_answers_each_line_before_the_next(model, images):
    expected = json.loads(run("predict", model, images[0], "--json").stdout)["predictions"]
    encoded = base64.b64encode(images[0].read_bytes()).decode()
    lines = [str(images[0]), f"base64:{encoded}", f"data:image/png;base64,{encoded}\r"]
    with subprocess.Popen(
        [native_program(), "predict", model, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as child:
        for line in lines:
            child.stdin.write(line + "\n")
            child.stdin.flush()
            # Would wait forever if the answer came only with the end of the input.
            assert json.loads(child.stdout.readline())["predictions"] == expected
        child.stdin.close()
        assert child.wait(timeout=60) == 0


def test_stream_tells_errors_and_goes_on(model, images):
    lines = ["none.jpg", "", "base64:!", "data:image/png,abc", str(images[1])]
    result = run("predict", model, "-", "--top-k", "2", input="\n".join(lines))
    assert result.returncode == 4
    replies = [json.loads(line) for line in result.stdout.splitlines()]
    assert ["error" in reply for reply in replies] == [True] * 4 + [False]
    assert replies[0]["path"] == "none.jpg"
    assert "No such file" in replies[0]["error"]
    assert "base64" in replies[2]["error"]
    assert len(replies[4]["predictions"]) == 2
    assert run("predict", model, "-", input="").returncode == 0


def test_info_tells_what_loading_took(model):
    loading = json.loads(run("info", model, "--json").stdout)["loading"]
    stages = [stage["stage"] for stage in loading["stages"]]
    assert stages[:3] == ["read", "check", "parse"]
    assert loading["start_ms"] > 0
    assert all(stage["ms"] >= 0 for stage in loading["stages"])
    assert "loading   program and LibTorch" in run("info", model).stdout


def test_info_of_a_plain_file_names_its_inputs(folder):
    path = folder / "bilinear.pt"
    torch.jit.save(torch.jit.script(torch.nn.Bilinear(2, 2, 1)), path)
    info = json.loads(run("info", path, "--plain", "--json").stdout)
    assert (info["kind"], info["manifest"]) == ("plain TorchScript", None)
    assert info["inputs"] == ["input1", "input2"]
    assert info["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "inputs    input1, input2 (the file tells" in run("info", path, "--plain").stdout


def test_doctor_tells_libtorch_openmp_and_quota():
    result = run("doctor", "--json", env={**os.environ, "CONVSHIP_ISA": "baseline"})
    report = json.loads(result.stdout)
    assert result.returncode == (0 if report["healthy"] else 5)
    findings = {each["subject"]: each for each in report["findings"]}
    assert findings["LibTorch"]["ok"]
    assert "libtorch_cpu.so" in findings["LibTorch"]["found"]
    assert findings["OpenMP"]["ok"]
    assert "in use: baseline" in findings["instruction sets"]["found"]
    assert "cgroup quota" in findings["CPUs"]["found"]
    assert "CONVSHIP_ISA=baseline" in findings["environment"]["found"]


def test_doctor_finds_a_second_openmp_runtime(folder):
    source = folder / "second.c"
    source.write_text("int nothing;\n")
    library = folder / "libgomp-second.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    result = run("doctor", env={**os.environ, "LD_PRELOAD": str(library)})
    assert result.returncode == 5
    assert "WRONG  OpenMP: " in result.stdout
    assert "several runtimes in one process" in result.stdout


def test_operator_library_that_is_missing_is_an_error_of_the_machine(model, images):
    result = run("predict", model, images[0], "--op-library", "/nowhere/libacme.so")
    assert result.returncode == 5
    assert "/nowhere/libacme.so: this operator library cannot be loaded" in result.stderr


def help_of(*verb: str) -> str:
    return run(*verb, "--help").stdout


def verbs() -> list[str]:
    return re.findall(r"^  (\w+) ", help_of().split("Subcommands:")[1], re.MULTILINE)


def test_man_page_and_completion_know_every_verb_and_option():
    page = (APPS / "convship-run.1").read_text().replace("\\-", "-")
    completion = (APPS / "convship-run.bash").read_text()
    expected = {"predict", "run", "serve", "selftest", "info", "bench", "stages", "doctor"}
    assert set(verbs()) == expected
    for verb in verbs():
        assert f".B {verb}\n" in page
        assert re.search(rf'verbs="[^"]*\b{verb}\b', completion)
        for option in re.findall(r"(--[\w-]+)", help_of(verb)):
            assert option in page, (verb, option)
            assert option in completion, (verb, option)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pre"], ["predict"]),
        (["predict", "--to"], ["--top-k"]),
        (["bench", "--b"], ["--backend", "--batch"]),
        (["info", "--backend", "lib"], ["libtorch"]),
        (["doctor", "--b"], []),
        (["serve", "--tls"], ["--tls-certificate", "--tls-key"]),
    ],
)
def test_bash_completes(words, expected):
    script = (
        f"source {APPS / 'convship-run.bash'}\n"
        f"COMP_WORDS=(convship-run {' '.join(words)}); COMP_CWORD={len(words)}\n"
        '_convship_run; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    result = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout.split() == expected


def test_documentation_of_the_program_is_installed():
    prefix = native_program().parent.parent
    assert (prefix / "share/man/man1/convship-run.1").exists()
    assert (prefix / "share/bash-completion/completions/convship-run").exists()


ACME = """
#include <ATen/ATen.h>
#include <torch/library.h>

static at::Tensor twice(const at::Tensor& x) { return x.add(x); }

TORCH_LIBRARY(acme, library) { library.def("twice(Tensor x) -> Tensor", &twice); }
"""

USES_ACME = """
import sys, torch

torch.ops.load_library(sys.argv[1])

class Twice(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.acme.twice(x)

torch.jit.save(torch.jit.script(Twice()), sys.argv[2])
"""


def test_operators_of_others_are_named_when_missing_and_used_when_there(folder):
    torch_folder = Path(torch.__file__).parent
    (folder / "acme.cpp").write_text(ACME)
    library, model = folder / "libacme.so", folder / "acme.pt"
    subprocess.run(
        [
            *("g++", "-std=c++20", "-shared", "-fPIC", "-O0", "-o", library, folder / "acme.cpp"),
            *(f"-isystem{torch_folder / 'include'}", f"-L{torch_folder / 'lib'}"),
            *("-ltorch_cpu", "-lc10"),
        ],
        check=True,
    )
    writer = folder / "uses_acme.py"  # TorchScript reads the source of what it compiles
    writer.write_text(USES_ACME)
    subprocess.run([sys.executable, "-W", "ignore", writer, library, model], check=True)
    np.save(folder / "acme.npy", np.float32([1, 2]))
    command = ("run", model, f"x={folder / 'acme.npy'}", "--output", folder / "acme", "--plain")
    missing = run(*command)
    assert missing.returncode == 3
    assert "the model needs the operator acme::twice, which this program" in missing.stderr
    result = run(*command, "--op-library", library)
    assert result.returncode == 0, result.stderr
    assert np.load(folder / "acme/output.npy").tolist() == [2, 4]


def test_memory_does_not_grow_over_thousands_of_answers(model, folder):
    paths = write_images(folder, 16)
    with subprocess.Popen(
        [native_program(), "predict", model, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:

        def resident_after(rounds: int) -> int:
            for _ in range(rounds):
                child.stdin.write("".join(f"{path}\n" for path in paths))
                child.stdin.flush()
                for _ in paths:
                    assert "predictions" in child.stdout.readline()
            status = Path(f"/proc/{child.pid}/status").read_text()
            return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

        settled = resident_after(20)
        assert resident_after(150) - settled < 1024  # KiB
        child.stdin.close()
