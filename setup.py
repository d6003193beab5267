"""Build the compiled part of f2d_kernels: C++ (CPU), CUDA if there is a toolkit, and a record of the build.

Parts that cannot be built are skipped, with one line that says why; the package then runs on PyTorch and Triton alone.

    F2D_KERNELS_SKIP_CPP=1    do not build the C++ part (and the build record)
    F2D_KERNELS_SKIP_CUDA=1   do not build the CUDA part
    F2D_KERNELS_FORCE_CUDA=1  build the CUDA part if nvcc is found, even with a CPU-only PyTorch
    TORCH_CUDA_ARCH_LIST      CUDA architectures, default "8.0;9.0;10.0+PTX"
    MAX_JOBS                  number of parallel compilers, by default from cores and memory
    CXX, CUDA_HOME            compiler and CUDA toolkit to use
"""

import hashlib
import importlib.util
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
VERSION = runpy.run_path(str(ROOT / "f2d_kernels" / "version.py"))["__version__"]
# The stable ABI begins with PyTorch 2.10, and one binary serves every later PyTorch. The package itself requires
# torch>=2.11, whose information about the processor its engine needs: see pyproject.toml.
MINIMUM_TORCH = (2, 10)
DEFAULT_ARCHITECTURES = "8.0;9.0;10.0+PTX"

# Without contraction of a * b + c and without fast-math every fma is explicit, so instruction sets agree bit for bit.
# -fno-math-errno and -fno-trapping-math change no value, but let loops with branches be vectorised.
KERNEL_FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]
AVX2_FLAGS = ["-mavx2", "-mfma", "-mf16c"]
AVX512_FLAGS = [*AVX2_FLAGS, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
LEVELS = {"baseline": [], "avx2": AVX2_FLAGS, "avx512": AVX512_FLAGS}


@dataclass(frozen=True)
class Torch:
    """The PyTorch to build against, read without importing it."""

    root: Path
    version: str
    cuda: str | None


@dataclass(frozen=True)
class Unit:
    """One object file: its source, and the compiler's command without the output."""

    source: Path
    command: tuple[str, ...]

    def object_in(self, folder: Path) -> Path:
        # the path keeps objects apart that another checkout compiled, when a build folder is copied with a tree
        digest = hashlib.sha1(" ".join([*self.command, str(self.source)]).encode()).hexdigest()[:10]
        return folder / f"{self.source.parent.name}-{self.source.stem}-{digest}.o"


def find_torch() -> Torch | None:
    """Find the installed PyTorch, or None (in an isolated build)."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).resolve().parent  # one path for all links to it: objects are kept by their commands
    facts = runpy.run_path(str(root / "version.py"))
    return Torch(root, facts["__version__"], facts.get("cuda"))


def find_compiler(environ: Mapping[str, str]) -> str | None:
    """Find the C++ compiler: CXX, else c++, g++ or clang++ on the path."""
    names = [environ["CXX"]] if environ.get("CXX") else ["c++", "g++", "clang++"]
    return next((found for found in map(shutil.which, names) if found), None)


def find_nvcc(environ: Mapping[str, str]) -> str | None:
    """Find nvcc: that of CUDA_HOME (or CUDA_PATH), else on the path, else in /usr/local/cuda."""
    homes = [environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name)]
    if homes:
        return shutil.which(str(Path(homes[0]) / "bin" / "nvcc"))
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def decide(
    environ: Mapping[str, str], torch: Torch | None, compiler: str | None, nvcc: str | None, system: str = "Linux"
) -> tuple[list[str], list[str]]:
    """Decide which of "cpp" and "cuda" to build, with a line for each that is skipped."""

    def switched(name: str) -> bool:
        return environ.get(name, "0").lower() not in ("", "0", "false", "no", "off")

    skip_cuda, force_cuda = switched("F2D_KERNELS_SKIP_CUDA"), switched("F2D_KERNELS_FORCE_CUDA")
    if skip_cuda and force_cuda:
        raise ValueError("F2D_KERNELS_SKIP_CUDA and F2D_KERNELS_FORCE_CUDA are both set: choose one")
    common = None
    if system != "Linux":
        common = f"it is built on Linux, this is {system}"
    elif torch is None:
        common = "no PyTorch at build time (to have it: pip install torch, then pip install --no-build-isolation .)"
    elif parse_version(torch.version) < MINIMUM_TORCH:
        common = f"it needs PyTorch {'.'.join(map(str, MINIMUM_TORCH))} or newer, this is {torch.version}"
    elif compiler is None:
        common = "no C++ compiler (set CXX, or install g++)"

    no_cpp = "F2D_KERNELS_SKIP_CPP is set" if switched("F2D_KERNELS_SKIP_CPP") else common
    no_cuda = "F2D_KERNELS_SKIP_CUDA is set" if skip_cuda else common
    if no_cuda is None and nvcc is None:
        no_cuda = "no nvcc (set CUDA_HOME to a CUDA toolkit)"
    elif no_cuda is None and torch is not None and torch.cuda is None and not force_cuda:
        no_cuda = f"PyTorch {torch.version} has no CUDA (F2D_KERNELS_FORCE_CUDA=1 builds it anyway)"
    if force_cuda and no_cuda is not None:
        raise RuntimeError(f"F2D_KERNELS_FORCE_CUDA is set, but the CUDA part cannot be built: {no_cuda}")
    skipped = {"cpp": no_cpp, "cuda": no_cuda}
    lines = [f"f2d_kernels: the {part} part is skipped: {reason}" for part, reason in skipped.items() if reason]
    return [part for part, reason in skipped.items() if reason is None], lines


def parse_version(version: str) -> tuple[int, int]:
    major, minor = re.match(r"(\d+)\.(\d+)", version).groups()
    return int(major), int(minor)


def architecture_flags(architectures: str) -> list[str]:
    """Return nvcc's -gencode flags for a TORCH_CUDA_ARCH_LIST such as "8.0;9.0a 10.0+PTX"."""
    flags = []
    for entry in architectures.replace(";", " ").replace(",", " ").split():
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", entry)
        if match is None:
            raise ValueError(f"TORCH_CUDA_ARCH_LIST: cannot read {entry!r}; write numbers such as 8.0;9.0;10.0+PTX")
        number = "".join(match.group(1, 2, 3))
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match.group(4):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    if not flags:
        raise ValueError(f"TORCH_CUDA_ARCH_LIST names no architecture: {architectures!r}")
    return flags


def job_count(environ: Mapping[str, str], cores: int, memory_gib: float) -> int:
    """Return MAX_JOBS, or one compiler per core and per 2 GiB of memory."""
    if environ.get("MAX_JOBS"):
        return max(1, int(environ["MAX_JOBS"]))
    return max(1, min(cores, int(memory_gib // 2)))


def target_macro() -> str:
    major, minor = MINIMUM_TORCH
    return f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000ULL"


def cpp_units(compiler: str, torch: Torch, machine: str) -> list[Unit]:
    """List every kernel file once per instruction set (x86-64 only), and their bindings to PyTorch."""
    base = (compiler, "-std=c++17", "-fPIC", "-fvisibility=hidden")
    levels = LEVELS if machine in ("x86_64", "AMD64") else {"baseline": []}
    units = [
        Unit(source, (*base, *KERNEL_FLAGS, *flags, f"-DF2D_LEVEL={level}"))
        for source in sorted((CSRC / "cpu").glob("*.cpp"))
        for level, flags in levels.items()
    ]
    bind = (*base, "-O2", target_macro(), "-isystem", str(torch.root / "include"))
    return [*units, *(Unit(source, bind) for source in sorted((CSRC / "cpu" / "bind").glob("*.cpp")))]


def cuda_units(nvcc: str, compiler: str, torch: Torch, architectures: str) -> list[Unit]:
    command = (
        *(nvcc, "-std=c++17", "-O3", "-fmad=false", "-ccbin", compiler, *architecture_flags(architectures)),
        *("-Xcompiler", "-fPIC,-fvisibility=hidden", "-DUSE_CUDA", target_macro()),
        *("-isystem", str(torch.root / "include")),
    )
    return [Unit(source, command) for source in sorted((CSRC / "cuda").glob("*.cu"))]


def build_info_unit(compiler: str, torch: Torch, cuda: str, architectures: str) -> Unit:
    import sysconfig

    macros = {
        "F2D_VERSION": VERSION,
        "F2D_MINIMUM_TORCH": ".".join(map(str, MINIMUM_TORCH)),
        "F2D_CUDA": cuda,
        "F2D_CUDA_ARCHITECTURES": architectures if cuda else "",
    }
    includes = [str(torch.root / "include"), sysconfig.get_paths()["include"]]
    return Unit(
        CSRC / "build_info.cpp",
        (
            *(compiler, "-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden"),
            *(f'-D{name}="{value}"' for name, value in macros.items()),
            *(flag for include in includes for flag in ("-isystem", include)),
        ),
    )


def nvcc_version(nvcc: str) -> str:
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release (\d+\.\d+)", text).group(1)


def up_to_date(target: Path, dependencies: Path) -> bool:
    """Whether `target` is newer than every file that its make rule in `dependencies` names."""
    if not (target.exists() and dependencies.exists()):
        return False
    names = dependencies.read_text().split(":", 1)[1].replace("\\\n", " ").split()
    return all(Path(name).exists() and Path(name).stat().st_mtime < target.stat().st_mtime for name in names)


class BuildCompiled(build_ext):
    """Compile all object files of all parts in one pool, then link each part to its shared object."""

    def get_ext_filename(self, fullname: str) -> str:
        # the stable-ABI parts do not depend on Python, so they have the same file name for every version
        *package, name = fullname.split(".")
        if name in ("_cpu", "_cuda"):
            return str(Path(*package, f"{name}.so"))
        return super().get_ext_filename(fullname)

    def build_extensions(self) -> None:
        torch, compiler, nvcc = find_torch(), find_compiler(os.environ), find_nvcc(os.environ)
        architectures = os.environ.get("TORCH_CUDA_ARCH_LIST") or DEFAULT_ARCHITECTURES
        names = [extension.name for extension in self.extensions]
        has_cuda = "f2d_kernels._cuda" in names
        units = {
            "f2d_kernels._cpu": lambda: cpp_units(compiler, torch, platform.machine()),
            "f2d_kernels._cuda": lambda: cuda_units(nvcc, compiler, torch, architectures),
            "f2d_kernels._build_info": lambda: [
                build_info_unit(compiler, torch, nvcc_version(nvcc) if has_cuda else "", architectures)
            ],
        }
        plan = {name: units[name]() for name in names}
        folder = Path(self.build_temp)
        folder.mkdir(parents=True, exist_ok=True)
        memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        with ThreadPoolExecutor(job_count(os.environ, os.cpu_count() or 1, memory_gib)) as pool:
            list(pool.map(lambda unit: self._compile(unit, folder), [unit for part in plan.values() for unit in part]))
        for name, part in plan.items():
            objects = [str(unit.object_in(folder)) for unit in part]
            self._link(name, objects, compiler, nvcc, torch, folder)

    def _compile(self, unit: Unit, folder: Path) -> None:
        target = unit.object_in(folder)
        dependencies = target.with_suffix(".d")  # the compiler's list of the files it read
        if not self.force and up_to_date(target, dependencies):
            return
        partial = target.with_suffix(f".{os.getpid()}.o")
        _run([*unit.command, "-c", str(unit.source), "-MMD", "-MF", str(dependencies), "-o", str(partial)])
        partial.replace(target)

    def _link(self, name: str, objects: list[str], compiler: str, nvcc: str | None, torch: Torch, folder: Path) -> None:
        target = Path(self.get_ext_fullpath(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        libraries = [f"-L{torch.root / 'lib'}", "-ltorch_cpu", "-lc10"]
        if name.endswith("_cuda"):
            stub = self._torch_cuda_stub(compiler, torch, folder)
            _run([nvcc, "-shared", "-ccbin", compiler, *objects, *libraries, *stub, "-o", str(partial)])
        elif name.endswith("_cpu"):
            _run([compiler, "-shared", *objects, *libraries, "-o", str(partial)])
        else:
            _run([compiler, "-shared", *objects, "-o", str(partial)])
        partial.replace(target)

    @staticmethod
    def _torch_cuda_stub(compiler: str, torch: Torch, folder: Path) -> list[str]:
        """Return link flags that require libtorch_cuda.so; for a CPU-only PyTorch an empty stub replaces it."""
        directory = torch.root / "lib"
        if not (directory / "libtorch_cuda.so").exists():
            directory = folder
            stub = ["-shared", "-x", "c", "/dev/null", "-Wl,-soname,libtorch_cuda.so", "-o"]
            _run([compiler, *stub, str(folder / "libtorch_cuda.so")])
        return ["-Xlinker", "--no-as-needed", f"-L{directory}", "-ltorch_cuda"]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(
            "f2d_kernels: this command failed (F2D_KERNELS_SKIP_CPP=1 F2D_KERNELS_SKIP_CUDA=1 installs without it):\n"
            f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        )


def extensions() -> list[Extension]:
    torch = find_torch()
    parts, lines = decide(os.environ, torch, find_compiler(os.environ), find_nvcc(os.environ), platform.system())
    for line in lines:
        print(line, file=sys.stderr)
    names = {"cpp": ["_cpu", "_build_info"], "cuda": ["_cuda", "_build_info"]}
    wanted = dict.fromkeys(name for part in parts for name in names[part])
    return [Extension(f"f2d_kernels.{name}", sources=[]) for name in wanted]


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildCompiled})
