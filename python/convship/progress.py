"""Progress of a training: a bar on a terminal, plain lines elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

__all__ = ["Progress"]

_PLAIN_INTERVAL_S = 30.0  # between lines within one epoch, where there is no terminal


class Progress:
    """Shows how far a training is; does nothing where `enabled` is False.

    Example:
        >>> with Progress(epochs=1, enabled=False) as progress:
        ...     progress.start_epoch(1, steps=10)
        ...     progress.step()
        ...     progress.say("done")
    """

    def __init__(self, epochs: int, *, enabled: bool = True) -> None:
        self.epochs = epochs
        self.enabled = enabled
        self._bar: Any = None
        self._task: Any = None
        self._label = ""
        self._steps = self._done = self._shown = 0
        self._last_line = 0.0

    def __enter__(self) -> Progress:
        if self.enabled and sys.stderr.isatty():
            from rich import progress as rich_progress
            from rich.console import Console

            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.TaskProgressColumn(),
                rich_progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start_epoch(self, epoch: int, steps: int) -> None:
        """Begin epoch number `epoch`, counted from 1, of `steps` steps."""
        self._label = f"epoch {epoch}/{self.epochs}"
        self._steps, self._done, self._shown = steps, 0, 0
        self._last_line = time.monotonic()
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(self._label, total=steps)

    def step(self) -> None:
        """Count one step. Called thousands of times a second, so it looks at few of them."""
        self._done += 1
        if self.enabled and (self._done - self._shown) * 200 >= self._steps:
            self._shown = self._done
            self._show()

    def say(self, line: str) -> None:
        """Print one line."""
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() - self._last_line > _PLAIN_INTERVAL_S:
            self._last_line = time.monotonic()
            self.say(f"{self._label}: {100 * self._done // self._steps} %")
