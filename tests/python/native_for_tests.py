"""convship-run as a process."""

from __future__ import annotations

import subprocess

from convship.verify import native_program


def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [native_program(), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
