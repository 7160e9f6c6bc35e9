"""Progress bars on stderr, for people who look at a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from edge_ran.printable import unguarded

if TYPE_CHECKING:
    from edge_ran.host.checkpoint import EpochRecord
    from edge_ran.host.training_loop import Callbacks
    from edge_ran.host.training_loop import Progress as TrainingProgress


@contextlib.contextmanager
def training_progress(quiet: bool) -> Iterator[Callbacks]:
    """Yield the callbacks of a training: a bar on a terminal, a line for each epoch elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from edge_ran.host.training_loop import Callbacks

    console = Console(file=unguarded(sys.stderr), quiet=quiet)
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=not console.is_terminal) as bar:
        loading = bar.add_task("reading pictures", note="", visible=False)
        fitting = bar.add_task("fitting the last layer", note="", visible=False)
        training = bar.add_task("training", note="", visible=False)

        def on_load(done: int, total: int) -> None:
            bar.update(loading, completed=done, total=total, visible=done < total)

        def on_fit(done: int, total: int) -> None:
            bar.update(fitting, completed=done, total=total, visible=done < total)

        def on_stage(text: str) -> None:
            console.print(f"edge-ran: {text}", highlight=False, markup=False, soft_wrap=True)

        def on_step(p: TrainingProgress) -> None:
            note = f"epoch {p.epoch + 1}/{p.epochs}  loss {p.loss:.3f}  {p.images_per_s:.0f} images/s"
            bar.update(training, completed=p.step, total=p.steps, note=note, visible=True)

        def on_epoch(history: Sequence[EpochRecord]) -> None:
            last = history[-1]
            text = f"epoch {last.epoch}: loss {last.loss:.4f} top-1 {last.top1:.2%}"
            if last.validation_top1 is not None:
                text += f", validation loss {last.validation_loss:.4f} top-1 {last.validation_top1:.2%}"
            console.print(f"{text}, {last.images_per_s:.0f} images/s", highlight=False, soft_wrap=True)

        yield Callbacks(on_load, on_stage, on_step, on_epoch, on_fit)


@contextlib.contextmanager
def progress_bar(title: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback (done, total) that draws a bar on a terminal; None where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=unguarded(sys.stderr)), transient=True) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)
