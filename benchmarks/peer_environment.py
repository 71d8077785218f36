"""The virtual environment of the peers, which have versions of their own."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

from machine import ROOT

PEERS = ROOT / "benchmarks" / "peers"
REQUIREMENTS = PEERS / "requirements-coles.txt"


def peer_python(work: Path) -> Path:
    """The Python of the environment below a folder, which is made if it isn't there."""
    folder = work / "coles"
    python, mark = folder / "bin" / "python", folder / ".installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", REQUIREMENTS], check=True)
        if subprocess.run([python, "-c", "import torch"], capture_output=True).returncode:
            sys.exit(
                "the torch that pip chose for CoLES needs CUDA's libraries: run this again with "
                "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu in the environment"
            )
        mark.write_text(wanted, encoding="utf-8")
    return python
