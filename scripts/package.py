"""Makes a relocatable archive of a native build, with all libraries but libc and all licences."""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

# glibc is the one thing that every Linux has, and that cannot be moved.
LIBC = re.compile(r"^(ld-linux.*|linux-vdso|lib(c|m|dl|rt|pthread|resolv|util))\.so")
# Compiled in as headers.
HEADER_PACKAGES = ("libhwy-dev", "nlohmann-json3-dev", "libcli11-dev")


def output_of(*command: object) -> str:
    return subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True
    ).stdout


def tool(name: str) -> str:
    """A program of this Python's environment, or of the system."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        sys.exit(f"package: {name} is missing; scripts/setup installs it")
    return found


def needed_libraries(program: Path) -> dict[str, Path]:
    """SONAME to file of everything the program loads, libc left out."""
    libraries = {}
    line = re.compile(r"^\s*(\S+) => (.*?)(?: \(0x.*\))?$", re.MULTILINE)
    for name, path in line.findall(output_of("ldd", program)):
        if path == "not found":
            sys.exit(f"package: {program.name} needs {name}, which is not found")
        if not LIBC.match(Path(name).name):
            libraries[Path(name).name] = Path(path).resolve()
    return libraries


def debian_package(path: Path) -> str | None:
    # Merged /usr: dpkg may know a file by its older path.
    for candidate in (path, Path(str(path).removeprefix("/usr"))):
        result = subprocess.run(
            ["dpkg-query", "-S", candidate], capture_output=True, text=True, check=False
        )
        if result.returncode == 0:
            return result.stdout.split(":")[0]
    return None


def torch_licences(library: Path) -> list[Path]:
    packages = library.parents[2]
    return sorted(
        path
        for info in packages.glob("torch-*.dist-info")
        for path in info.rglob("*")
        if path.is_file() and re.match(r"(LICEN[CS]E|NOTICE|COPYING)", path.name)
    )


def copy_licences(libraries: dict[str, Path], licences: Path) -> None:
    packages = set(HEADER_PACKAGES)
    # The package's name holds Boost's version.
    if boost := debian_package(Path("/usr/include/boost/version.hpp")):
        packages.add(boost)
    for name, path in libraries.items():
        if path.parent.parent.name == "torch":
            for licence in torch_licences(path):
                relative = licence.relative_to(path.parents[2])
                target = licences / "torch" / Path(*relative.parts[1:])
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(licence, target)
            continue
        package = debian_package(path)
        if package is None:
            sys.exit(f"package: no Debian package owns {path} ({name}), so its licence is unknown")
        packages.add(package)
    for package in sorted(packages):
        (licences / package).mkdir(parents=True, exist_ok=True)
        shutil.copy(f"/usr/share/doc/{package}/copyright", licences / package / "copyright")


def make_tree(build: Path, tree: Path) -> None:
    """Install into `tree`, add what is needed, and let everything look beside itself."""
    subprocess.run(
        ["cmake", "--install", build, "--prefix", tree, "--strip"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    lib = next(path.parent for path in tree.rglob("libconvship.so.0"))
    program = tree / "bin/convship-run"
    libraries = {
        name: path for name, path in needed_libraries(program).items() if tree not in path.parents
    }
    for name, path in libraries.items():
        shutil.copy(path, lib / name)
        subprocess.run(["strip", "--strip-unneeded", lib / name], check=True)
    patchelf = tool("patchelf")
    for path in lib.glob("*.so*"):
        if path.is_symlink():
            continue
        if output_of(patchelf, "--print-rpath", path).strip() != "$ORIGIN":
            output_of(patchelf, "--set-rpath", "$ORIGIN", path)
    output_of(patchelf, "--set-rpath", f"$ORIGIN/../{lib.relative_to(tree)}", program)
    forget_build_machine(lib / "cmake/convship/convshipConfig.cmake")
    root = Path(__file__).parents[1]
    documents = tree / "share/doc/convship"
    documents.mkdir(parents=True)
    for name in ("LICENSE", "README.md", "docs/embedding.md", "docs/serving.md"):
        shutil.copy(root / name, documents / Path(name).name)
    copy_licences(libraries, documents / "third-party")


def forget_build_machine(config: Path) -> None:
    """The LibTorch that the build was made with is no place on other machines."""
    text = config.read_text(encoding="utf-8")
    line = re.compile(r'^set\(_convship_built_with ".*"\)$', re.MULTILINE)
    text, count = line.subn('set(_convship_built_with "")', text)
    if count != 1:
        sys.exit(f"package: {config.name} does not name the LibTorch of the build once")
    config.write_text(text, encoding="utf-8")


def sizes(tree: Path) -> dict[str, int]:
    """Bytes by what they are for."""
    found = {"LibTorch": 0, "other libraries": 0, "convship": 0, "headers, docs, licences": 0}
    for path in tree.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        name = path.name
        if name.startswith(("libtorch", "libc10", "libgomp")):
            key = "LibTorch"
        elif name.startswith("libconvship") or path.parent.name == "bin":
            key = "convship"
        elif ".so" in name:
            key = "other libraries"
        else:
            key = "headers, docs, licences"
        found[key] += path.stat().st_size
    return found


def make_archive(tree: Path, archive: Path) -> None:
    """Same tree, same order and owners."""

    def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = "root"
        return info

    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        tar.add(tree, tree.name, filter=anonymous)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path, help="folder of a native build")
    parser.add_argument("out", type=Path, help="folder for the archive")
    parser.add_argument("--tree-only", action="store_true", help="leave the archive out")
    arguments = parser.parse_args()

    cache = (arguments.build / "CMakeCache.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"CMAKE_PROJECT_VERSION:STATIC=(.*)", cache)
    name = f"convship-{version}-linux-{platform.machine()}"
    tree = arguments.out.resolve() / name
    shutil.rmtree(tree, ignore_errors=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    make_tree(arguments.build, tree)
    for what, size in sizes(tree).items():
        print(f"{what:24} {size / 1e6:8.1f} MB")
    if arguments.tree_only:
        print(tree)
        return
    archive = tree.with_name(f"{name}.tar.gz")
    make_archive(tree, archive)
    print(f"{'archive':24} {archive.stat().st_size / 1e6:8.1f} MB")
    print(archive)


if __name__ == "__main__":
    main()
