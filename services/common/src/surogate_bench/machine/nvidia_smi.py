"""What nvidia-smi reports, whether or not torch can use the GPUs."""

import shutil
import subprocess

_TIMEOUT_S = 20.0


def query_nvidia_smi(*fields: str) -> list[str]:
    """Return a line for each GPU, of the fields separated by commas; none if nvidia-smi is missing or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        answer = subprocess.run(
            [command, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return answer.stdout.splitlines()
