"""By what some epochs were computed: the commit of the code, versions, hardware and numerics."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaepriors.devices import hardware
from vaepriors.numerics import describe

__all__ = ["commit_of", "session"]


def session(epoch: int, device: torch.device) -> dict[str, Any]:
    """Where and by what the epochs after `epoch` were computed."""
    import vaepriors

    return {
        "after_epoch": epoch,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_of(Path(vaepriors.__file__).parent),
        "versions": {
            "vaepriors": vaepriors.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "hardware": hardware(device),
        "numerics": describe(),
    }


def commit_of(package: Path) -> str | None:
    """The commit of the code in a folder, with a plus sign if it was changed since; None outside of a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # else the checkout is another project's
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
