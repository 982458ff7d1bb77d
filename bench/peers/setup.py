"""Set up the peers, each in its own virtual environment beside this file: ``python bench/peers/setup.py [NAME ...]``.

Environments go to ``.envs/NAME`` (3.1 GB together), fastembed's ONNX export of the model to ``.models/``; both are
ignored by git. Everything is pinned in ``requirements-NAME.txt``. A peer that is set up already is left alone.

text-embeddings-inference is no peer here: it is a Rust server that is shipped as container images and source, not as a
wheel, and needs a Rust toolchain and, for the CPU, Intel MKL to build.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".envs"
MODELS = HERE / ".models"
PEERS = ("sentence-transformers", "fastembed", "infinity")
# torch goes in alone and first: beside other packages pip may choose the build with CUDA, 3 GB more.
TORCH = "torch==2.13.0"
WITH_TORCH = ("sentence-transformers", "infinity")


def install(name: str, torch_index: str | None) -> None:
    """Make ``.envs/NAME``; a mark is written last, so an interrupted installation is done again."""
    folder = ENVIRONMENTS / name
    mark = folder / "ready"
    if mark.exists():
        print(f"{name}: ready")
        return
    print(f"{name}: installing", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if name in WITH_TORCH:
        index = ["--index-url", torch_index] if torch_index else []
        subprocess.run([*pip, *index, TORCH], check=True)
    subprocess.run([*pip, "-r", str(HERE / f"requirements-{name}.txt")], check=True)
    mark.touch()
    print(f"{name}: ready")


def export(model: Path) -> None:
    """Give fastembed the same weights as ONNX."""
    target = MODELS / "fastembed"
    if (target / "model.onnx").exists():
        return
    print("fastembed: exporting the model to ONNX", flush=True)
    python = ENVIRONMENTS / "sentence-transformers" / "bin" / "python"
    subprocess.run([str(python), str(HERE / "export_onnx.py"), str(model), str(target)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(PEERS), help=f"peers, of {', '.join(PEERS)}; all by default")
    parser.add_argument("--model", type=Path, help="the model's folder, to export it to ONNX for fastembed")
    parser.add_argument("--torch-index", help="where pip finds torch's CPU build, if not where it finds the rest")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(PEERS))
    if unknown:
        parser.error(f"unknown peer {', '.join(unknown)}; known are {', '.join(PEERS)}")
    for name in args.names:
        install(name, args.torch_index)
    if args.model and "fastembed" in args.names:
        export(args.model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
