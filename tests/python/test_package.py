"""scripts/package: one archive that runs where there is neither Python nor LibTorch."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from models_for_tests import LABELS, classifier, write_images

import convship

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/native"

pytestmark = pytest.mark.skipif(
    not (BUILD / "cpp/apps/convship-run").exists(), reason="scripts/test makes the native build"
)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder of the archive, unpacked elsewhere, and what the script printed."""
    out = tmp_path_factory.mktemp("package")
    result = subprocess.run(
        [sys.executable, ROOT / "scripts/package.py", BUILD, out / "dist"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    archive = Path(result.stdout.splitlines()[-1])
    shutil.rmtree(archive.with_name(archive.name.removesuffix(".tar.gz")))
    with tarfile.open(archive) as tar:
        tar.extractall(out / "elsewhere", filter="data")
    yield next((out / "elsewhere").iterdir()), result.stdout
    shutil.rmtree(out)


@pytest.fixture(scope="module")
def bare(package, tmp_path_factory):
    """Run commands in a root file system that holds libc, the archive, a model and images."""
    root = tmp_path_factory.mktemp("bare")
    program = (package[0] / "bin/convship-run").read_bytes()
    linker = Path(re.search(rb"/lib[\w/]*/ld-[\w.-]+", program)[0].decode())
    places = subprocess.run(
        ["ldd", package[0] / "bin/convship-run"], capture_output=True, text=True, check=True
    )
    libc = re.findall(r"=> (/\S+/lib(?:c|m|dl|rt|pthread)\.so\.\d+)", places.stdout)
    for source in (linker, *map(Path, libc)):
        target = root / source.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (root / "proc").mkdir()
    shutil.move(package[0], root / "opt")
    package[0].symlink_to(root / "opt")
    images = write_images(root)
    network, preprocess = classifier()
    convship.export_model(
        network, root / "model.pt", samples=images[:1], preprocess=preprocess, labels=LABELS
    )

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        # The loader finds a program's folder through /proc, as in any container.
        script = 'mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"'
        return subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(root), *command],
            capture_output=True,
            text=True,
            check=False,
        )

    if run("/opt/bin/convship-run", "--version").returncode == 1:
        pytest.skip("this kernel lets nobody make a file system of one's own")
    yield root, run
    shutil.rmtree(root)


def test_prints_what_everything_weighs(package):
    _, printed = package
    sizes = {
        line.rsplit(maxsplit=2)[0]: float(line.rsplit(maxsplit=2)[1])
        for line in printed.splitlines()[:-1]
    }
    assert sizes["LibTorch"] > 10 * sizes["convship"] > 0
    assert sizes["archive"] < sum(sizes.values()) / 2


def test_every_library_has_its_licence_and_looks_beside_itself(package):
    tree, _ = package
    licences = {path.name for path in (tree / "share/doc/convship/third-party").iterdir()}
    assert {"torch", "libssl3", "libzip4", "libhwy-dev"} <= licences
    assert any(name.startswith("libboost") for name in licences)
    for path in (tree / "share/doc/convship/third-party").iterdir():
        assert any(each.is_file() and each.stat().st_size > 0 for each in path.rglob("*")), path
    for library in (tree / "lib").glob("*.so*"):
        dynamic = subprocess.run(
            ["readelf", "-d", library], capture_output=True, text=True, check=True
        ).stdout
        assert re.findall(r"R(?:UN)?PATH.*\[(.*)\]", dynamic) == ["$ORIGIN"], library.name


def test_texts_do_not_speak_of_the_machine_that_built_it(package):
    tree, _ = package
    for path in [*tree.rglob("*.cmake"), *tree.rglob("*.pc"), *tree.rglob("*.h")]:
        assert str(ROOT) not in path.read_text(encoding="utf-8"), path
        assert str(Path(sys.prefix)) not in path.read_text(encoding="utf-8"), path


def test_runs_where_there_is_neither_python_nor_libtorch(bare):
    root, run = bare
    assert not [*root.rglob("libpython*"), *root.rglob("bin/python*")]
    expected = convship.load(root / "model.pt").predict(root / "image1.jpg")[0]
    result = run("/opt/bin/convship-run", "predict", "/model.pt", "/image1.jpg")
    assert result.stdout == f"/image1.jpg: {expected.label} {expected.probability:.4f}\n"
    assert run("/opt/bin/convship-run", "selftest", "/model.pt").returncode == 0
    doctor = run("/opt/bin/convship-run", "doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "/opt/bin/../lib/libtorch_cpu.so" in doctor.stdout


def test_programs_compile_against_it_and_run_there(bare):
    root, run = bare
    source = ROOT / "cpp/examples/c/classify.c"
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "convship"],
        env={"PATH": "/usr/bin:/bin", "PKG_CONFIG_PATH": str(root / "opt/lib/pkgconfig")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    origin = "-Wl,-rpath,/opt/lib"
    subprocess.run(["gcc", "-o", root / "classify", source, *flags, origin], check=True)
    result = run("/classify", "/model.pt", "/image1.jpg")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("/image1.jpg: ")
