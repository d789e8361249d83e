#!/usr/bin/env python3
"""Make .venv and install the pinned requirements. Standard library only; safe to repeat, free when nothing changed.

    python3 .dev/setup_env.py            what `make run` needs
    python3 .dev/setup_env.py --tests    and what `make test` needs

Torch's build is chosen here, so that requirements.txt stays plain: on Linux without an NVIDIA GPU the CPU build is
taken first (about 200 MB instead of several GB of CUDA libraries). FM_TORCH=cpu|default overrides the choice.
FM_WHEELS=/folder installs from a local wheel folder alone, without any network.
"""

import hashlib
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENV = pathlib.Path(os.environ.get("FM_VENV", ROOT / ".venv"))
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_PIN = re.compile(r"(?m)^torch\s*==\s*[^\s#]+")


def has_nvidia_gpu() -> bool:
    exe = shutil.which("nvidia-smi")
    return bool(exe) and subprocess.run([exe, "-L"], capture_output=True).returncode == 0


def wants_cpu_torch() -> bool:
    kind = os.environ.get("FM_TORCH", "auto")
    if kind not in ("auto", "cpu", "default"):
        sys.exit(f"FM_TORCH={kind!r} is not known. Use cpu, default or auto.")
    return kind == "cpu" or (kind == "auto" and platform.system() == "Linux" and not has_nvidia_gpu())


def pip(*args: str) -> int:
    wheels = os.environ.get("FM_WHEELS")
    where = ["--no-index", "--find-links", wheels] if wheels else []
    command = [str(ENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q", *where, *args]
    return subprocess.run(command).returncode


def install_torch(pin: str) -> None:
    """Torch's CPU build: from the wheel folder, else from whatever pip is set up with, else from torch's own index."""
    if os.environ.get("FM_WHEELS"):
        return  # the folder decides which build there is
    print(f"No NVIDIA GPU found: taking the CPU build of {pin} (FM_TORCH=default for the other).", flush=True)
    if pip("--no-deps", "--retries", "0", "--timeout", "10", "--index-url", TORCH_CPU_INDEX, pin):
        print("Torch's CPU index is out of reach; the default index serves torch (with CUDA libraries: several GB).", flush=True)


def make_environment() -> None:
    if (ENV / "bin" / "python").exists():
        return
    print(f"Creating {ENV} ...", flush=True)
    try:
        venv.create(ENV, with_pip=True, clear=ENV.exists())
    except (subprocess.CalledProcessError, OSError) as error:
        shutil.rmtree(ENV, ignore_errors=True)
        sys.exit(
            f"The virtual environment could not be made ({error}). On Debian: apt install python3-venv; and {ENV.parent} must be writable."
        )


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  (this script meets whatever Python the machine has)
        sys.exit(f"Python 3.11 or newer is needed; this is {platform.python_version()}. Try: make PYTHON=python3.11")
    files = [ROOT / "requirements.txt"]
    if "--tests" in sys.argv[1:]:
        files.append(ROOT / "tests" / "requirements.txt")
    make_environment()
    for file in files:
        stamp = ENV / f".installed-{file.parent.name if file.parent != ROOT else 'desk'}"
        wanted = hashlib.sha256(file.read_bytes() + os.environ.get("FM_TORCH", "auto").encode()).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            continue
        pin = TORCH_PIN.search(file.read_text())
        if pin and wants_cpu_torch():
            install_torch(pin[0])
        print(f"Installing {file.relative_to(ROOT)} (a few minutes the first time) ...", flush=True)
        if pip("-r", str(file)):
            name = file.relative_to(ROOT)
            sys.exit(f"pip could not install {name}; its message is above. Without a network, set FM_WHEELS to a folder of wheels.")
        stamp.write_text(wanted)


if __name__ == "__main__":
    main()
