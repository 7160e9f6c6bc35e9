"""The options of `edge-ran train`: recipe, training, latency budget and the machines that train together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edge_ran.cli.app import parse_seconds
from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.recipe import TrainOptions
    from edge_ran.workers import Workers


@dataclass(frozen=True)
class RecipeOptions:
    """Changes of the recipe, for ``recipe.Recipe.changed``."""

    PANEL: ClassVar[str] = "Recipe"

    epochs: Annotated[int | None, typer.Option(help="Passes; 0: last layer only.", show_default="the recipe's")] = None
    batch_size: Annotated[int | None, typer.Option(help="Pictures in a step.", show_default="the recipe's")] = None
    learning_rate: Annotated[float | None, typer.Option(help="Highest rate.", show_default="the recipe's")] = None
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay of the kernels.")] = None
    label_smoothing: Annotated[float | None, typer.Option(help="Share of the target given to all classes.")] = None
    mixup: Annotated[float | None, typer.Option(help="Alpha of mixup, 0 = off.")] = None
    flip: Annotated[bool | None, typer.Option(help="Mirror at random (not for signs and text).")] = None
    brightness: Annotated[float | None, typer.Option(help="Largest relative change of brightness.")] = None
    contrast: Annotated[float | None, typer.Option(help="Largest relative change of contrast.")] = None
    colour: Annotated[float | None, typer.Option(help="Largest relative change of saturation (and light).")] = None


@dataclass(frozen=True)
class TrainingOptions:
    """How the network is trained, besides the recipe."""

    fit: Annotated[str, typer.Option(help="stretch the frame, or crop its centre.")] = "stretch"
    start: Annotated[
        str, typer.Option("--from", metavar="NAME|RUN", help="First weights: auto, none, a shipped name, a run.")
    ] = "auto"
    teacher: Annotated[
        str, typer.Option(metavar="RUN|FILE", help="A run or .tflite of the same classes to learn from as well.")
    ] = ""
    none: Annotated[
        str, typer.Option(metavar="FOLDER", help="Pictures and clips of none of the classes, to be unsure of.")
    ] = ""
    balance: Annotated[
        bool | None, typer.Option(help="Give rare classes more weight.", show_default="where they are uneven")
    ] = None
    validation_fraction: Annotated[float, typer.Option(help="Share held out to choose the best epoch.")] = 0.1
    precision: Annotated[str, typer.Option(help="float32, bfloat16, or auto (the faster).")] = "float32"
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Decides order, augmentation and initial weights.")
    ] = 0
    checkpoint_secs: Annotated[float, typer.Option(help="Seconds between checkpoints in an epoch.")] = 120.0
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False

    def options(self, start: str) -> TrainOptions:
        """Return them as the library takes them, with the first weights that were found. Raises UsageError."""
        from edge_ran.dataset.splitting import check_fraction
        from edge_ran.recipe import TrainOptions

        check_fraction(self.validation_fraction)
        found = TrainOptions(
            self.fit, self.validation_fraction, self.balance, self.precision, self.seed, self.skip_bad,
            self.checkpoint_secs, start=start, teacher=self.teacher, none=self.none,
        )  # fmt: skip
        found.check()
        return found


@dataclass(frozen=True)
class BudgetOptions:
    """A limit of the inference time, which chooses the network."""

    PANEL: ClassVar[str] = "Latency budget"

    budget: Annotated[
        str,
        typer.Option(metavar="TIME", help="Train the largest network that infers in this time, such as 10ms."),
    ] = ""
    device: Annotated[
        str,
        typer.Option(
            "--device",
            "-d",
            metavar="DEVICE",
            help="Where the inference is timed; its description may give the budget.",
        ),
    ] = ""

    def limit_ms(self) -> float | None:
        """Return what ``--budget`` says, else the budget in the device's description. Raises UsageError."""
        if self.budget:
            if seconds := parse_seconds(self.budget):
                return 1e3 * seconds
            raise UsageError(f"--budget {self.budget} leaves no time for an inference", "for instance --budget 10ms")
        if not self.device:
            return None
        from edge_ran.targets import resolve

        if known := resolve(self.device).latency_budget_ms:
            return known
        raise UsageError(f"{self.device} has no latency_budget_ms", "give --budget 10ms, or leave --device away")


@dataclass(frozen=True)
class WorkerOptions:
    """The machines of one training."""

    workers: Annotated[
        str, typer.Option(metavar="HOST:PORT,...", help="All machines that train together.", show_default="TF_CONFIG")
    ] = ""
    worker: Annotated[int | None, typer.Option(help="Which of --workers this one is; 0 writes the run.")] = None

    def workers_of(self, has_budget: bool) -> Workers | None:
        """Return the workers that they or TF_CONFIG name, None for one process.

        Raises:
            UsageError: the words name none; there is a budget as well, which begins TensorFlow before they connect.
        """
        from edge_ran.cli.rules import ALONE
        from edge_ran.workers import from_words

        found = from_words(self.workers, self.worker)
        if found is not None and has_budget:
            raise UsageError(
                "a latency budget cannot be used with the workers that TF_CONFIG names", f"unset TF_CONFIG: {ALONE}"
            )
        return found
