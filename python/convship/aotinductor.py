"""A network as an AOTInductor package, the native code of a .pt2 file. Internal to export."""

from __future__ import annotations

import inspect
import io
import platform
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convship.bundle import GOLDENS, MANIFEST, OWN_FOLDER, PREPROCESS, CompiledFor, flatten
from convship.errors import ExportError
from convship.fusion import fuse
from convship.golden import NetworkInput, run_network
from convship.scripting import first_line, required_ops, without_deprecation

# Level of the architecture to the width of its vectors, narrower ones first.
CPUS = {"x86-64-v3": 256, "x86-64-v4": 512}

_FOLDER = "data/aotinductor/model/"

# What compilers define for an instruction set that they may use, and how
# /proc/cpuinfo calls it. No matrix tiles: compilers do not use them by themselves,
# and AOTInductor only where it is told to search for the fastest products.
_FEATURES = {
    "SSE3": "pni", "SSSE3": "ssse3", "SSE4_1": "sse4_1", "SSE4_2": "sse4_2", "POPCNT": "popcnt",
    "AVX": "avx", "AVX2": "avx2", "FMA": "fma", "F16C": "f16c", "BMI": "bmi1", "BMI2": "bmi2",
    "LZCNT": "abm", "MOVBE": "movbe", "AVX512F": "avx512f", "AVX512CD": "avx512cd",
    "AVX512BW": "avx512bw", "AVX512DQ": "avx512dq", "AVX512VL": "avx512vl",
    "AVX512VNNI": "avx512_vnni", "AVX512BF16": "avx512_bf16", "AVX512FP16": "avx512_fp16",
    "AVX512VBMI": "avx512vbmi", "AVX512IFMA": "avx512ifma", "AVXVNNI": "avx_vnni",
}  # fmt: skip


@dataclass(frozen=True)
class _Target:
    """What to compile for: a level of the architecture, with vectors of `bits`."""

    march: str
    bits: int
    compiled_for: CompiledFor


class AotInductorFile:
    """A network on its way into a .pt2 file.

    Where it convolves, applies ReLU and pools, the package calls conv_pool2d; the rest is code
    that a C++ compiler makes here. Sizes are fixed, but for a classifier's batch.

    Raises:
        ExportError: There is no compiler, or the network cannot be compiled.
    """

    def __init__(self, network: nn.Module, cpu: str | None) -> None:
        if isinstance(network, torch.jit.ScriptModule):
            raise ExportError(
                "export_model: a scripted module cannot be compiled; give the nn.Module it was "
                "made of, or format='pt'"
            )
        self._target = _target(cpu)
        self._network = fuse(network).model.eval()
        self._preprocess: torch.jit.ScriptModule | None = None
        self._program: torch.export.ExportedProgram | None = None
        self._outputs: list[str] = []

    @property
    def compiled_for(self) -> CompiledFor:
        """The CPU that the code needs."""
        return self._target.compiled_for

    @property
    def required_ops(self) -> list[str]:
        """Operators beyond ATen, which a program must have registered before it loads the file."""
        assert self._program is not None
        names = {
            node.target.name().split(".")[0]
            for node in self._program.graph.nodes
            if isinstance(node.target, torch._ops.OpOverload)
        }
        if self._preprocess is not None:
            names.update(required_ops(self._preprocess))
        return sorted(name for name in names if name.split("::")[0] not in ("aten", "prim"))

    def argument_names(self) -> list[str]:
        """Return the network's arguments in order."""
        parameters = inspect.signature(self._network.forward).parameters.values()
        return [each.name for each in parameters if each.kind == each.POSITIONAL_OR_KEYWORD]

    def ship(self, preprocess: torch.jit.ScriptModule | None, inputs: NetworkInput) -> None:
        """Trace the network on `inputs`; a classifier of images takes any batch."""
        self._preprocess = preprocess
        values = tuple(inputs.values())
        shapes: Any = None
        if preprocess is not None:
            # Of one image, torch.export would take the batch to be 1 for ever.
            values = tuple(torch.cat([value, value]) for value in values)
            shapes = ({0: torch.export.Dim("batch")},)
        flat = _Flat(self._network, list(inputs), preprocess is not None).eval()
        try:
            program = torch.export.export(flat, values, dynamic_shapes=shapes and (shapes,))
        except Exception as error:
            raise ExportError(
                f"export_model: {type(self._network).__name__} cannot be compiled: "
                f"{first_line(error)}; write it so that torch.export takes it, or give format='pt'"
            ) from error
        self._program = program
        before = {name: buffer.clone() for name, buffer in self._network.named_buffers()}
        self._outputs = list(run_network(self._network, inputs, preprocess is not None))
        after = dict(self._network.named_buffers())
        if written := [name for name in before if not torch.equal(before[name], after[name])]:
            raise ExportError(
                f"export_model: the network writes to its buffers ({', '.join(written)}), which a "
                "compiled one cannot; give format='pt'"
            )

    def answer(self, inputs: NetworkInput) -> dict[str, Tensor]:
        """Return what the traced network answers, in Python."""
        assert self._program is not None
        found = self._program.module()(*(value.clone() for value in inputs.values()))
        return dict(
            zip(self._outputs, [found] if isinstance(found, Tensor) else found, strict=True)
        )

    def archive(self, extras: Mapping[str, bytes]) -> bytes:
        """Compile, and return all as an archive without comment; takes tens of seconds."""
        # Here, not above: importing inductor takes a second.
        from torch.export.pt2_archive import PT2ArchiveWriter

        members = {_FOLDER + name: data for name, data in self._compile().items()}
        members |= {f"extra/{MANIFEST}": extras[MANIFEST], OWN_FOLDER + GOLDENS: extras[GOLDENS]}
        if self._preprocess is not None:
            buffer = io.BytesIO()
            with without_deprecation():
                torch.jit.save(self._preprocess, buffer)
            members[PREPROCESS] = buffer.getvalue()
        packed = io.BytesIO()
        with PT2ArchiveWriter(packed) as writer:
            for name, data in members.items():
                writer.write_bytes(name, data)
        return packed.getvalue()

    def _compile(self) -> dict[str, bytes]:
        """The library, what it calls by number, and its metadata, under names of ours."""
        from torch._inductor import aoti_compile_and_package

        assert self._program is not None
        options = {
            "freezing": True,  # folds what does not change, packs LibTorch's own weights
            # Small ones would be made anew, and packed, in each call.
            "always_keep_tensor_constants": True,
            "cpp.dynamic_threads": True,  # as many as the program sets, not as this machine has
            "cpp.march": self._target.march,
            "cpp.simdlen": self._target.bits,
            "aot_inductor.enable_line_tables": False,
        }
        package = io.BytesIO()
        try:
            aoti_compile_and_package(self._program, package_path=package, inductor_configs=options)
        except Exception as error:
            raise ExportError(
                f"export_model: the network cannot be compiled: {first_line(error)}"
            ) from error
        with zipfile.ZipFile(package) as compiled:
            return _chosen(compiled)


def _chosen(compiled: zipfile.ZipFile) -> dict[str, bytes]:
    """Leave out the generated sources."""
    found: dict[str, bytes] = {}
    for path in compiled.namelist():
        name = path.rpartition("/")[2]
        ours = next((s for s in (".wrapper.so", ".wrapper.json") if name.endswith(s)), "")
        if name.endswith(".wrapper_metadata.json"):
            ours = ".wrapper_metadata.json"
        unknown = name.endswith((".so", ".o", ".blob")) or "/constants/" in path
        if (unknown and not ours) or f"model{ours}" in found:
            raise ExportError(
                f"export_model: the compiled network consists of more than one library ({name}), "
                "which a file cannot hold; give format='pt'"
            )
        if ours:
            found[f"model{ours}"] = compiled.read(path)
    return found


class _Flat(nn.Module):
    """Tensors by position in, tensors out: no structure that native programs would have to know."""

    def __init__(self, network: nn.Module, names: list[str], classifier: bool) -> None:
        super().__init__()
        self.network = network
        self.names = names
        self.classifier = classifier

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        if len(inputs) == 1:
            result = self.network(*inputs)
        else:
            result = self.network(**dict(zip(self.names, inputs, strict=True)))
        if self.classifier:
            logits: Tensor = result[0] if isinstance(result, tuple) else result
            return logits
        values = tuple(value for _, value in flatten(result))
        return values[0] if len(values) == 1 else values


def _target(cpu: str | None) -> _Target:
    """The CPU to compile for: the best level that this one has, unless told otherwise."""
    if platform.machine() != "x86_64":
        raise ExportError(
            f"export_model: format 'pt2' is made on x86_64 only, this is {platform.machine()}; "
            "give format='pt'"
        )
    if cpu is not None and cpu not in CPUS:
        raise ExportError(f"export_model: cpu must be one of {', '.join(CPUS)}, got '{cpu}'")
    present = _features_of_this_cpu()
    for march, bits in reversed(CPUS.items()):
        if cpu not in (None, march):
            continue
        features = _features(march, bits)
        if missing := [name for name in features if name not in present]:
            if cpu is None:
                continue
            raise ExportError(
                f"export_model: this CPU lacks what cpu='{cpu}' has ({', '.join(missing)}), so the "
                "file could not be tested; export it on one that has it"
            )
        return _Target(march, bits, CompiledFor(machine="x86_64", features=features))
    raise ExportError("export_model: format 'pt2' needs a CPU with AVX2; give format='pt'")


def _features_of_this_cpu() -> set[str]:
    with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
        return next((set(line.split()) for line in file if line.startswith("flags")), set())


def _features(march: str, bits: int) -> list[str]:
    """What the compiler may use, from itself, with the options that AOTInductor gives it."""
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.cpu_vec_isa import pick_vec_isa
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        compiler = get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ExportError(
            "export_model: format 'pt2' needs a C++ compiler, and there is none; install g++, set "
            "CXX to one, or give format='pt'"
        ) from error
    with config.patch({"cpp.simdlen": bits}):
        flags = pick_vec_isa().build_arch_flags().split()
    command = [compiler, f"-march={march}", *flags, "-dM", "-E", "-x", "c++", "/dev/null"]
    defined = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    macros = {line.split()[1].strip("_") for line in defined.splitlines()}
    return [feature for macro, feature in _FEATURES.items() if macro in macros]
