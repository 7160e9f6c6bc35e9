"""How a network is trained: one typed record, the presets, and what a command may change of them.

It is here and not in ``host``, because a model's card carries the recipe, and devices read cards.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from edge_ran.errors import UsageError, nearest

SCHEDULES = ("one-cycle", "cosine", "step", "constant")
MASK_PENALTY = 1e-3
_LIMITS = (
    ("epochs", 0, 1_000_000),
    ("batch_size", 1, 65_536),
    ("learning_rate", 0.0, 100.0),
    ("warmup", 0.0, 1.0),
    ("momentum", 0.0, 1.0),
    ("weight_decay", 0.0, 1.0),
    ("label_smoothing", 0.0, 0.9),
    ("mixup", 0.0, 10.0),
    ("pad", 0.0, 0.5),
    ("brightness", 0.0, 1.0),
    ("contrast", 0.0, 1.0),
    ("colour", 0.0, 1.0),
    ("distillation", 0.0, 1.0),
    ("body_rate", 0.0, 1.0),
    ("average", 0.0, 0.9999),
    ("patience", 0, 1_000_000),
    ("mask_penalty", 0.0, 1.0),
    ("group_balance", 0.0, 1.0),
)


@dataclass(frozen=True)
class Recipe:
    """How to train. The learning rate is for ``batch_size`` pictures in each step. No ``epochs`` leave the network with
    the weights that it starts from and a last layer that is fitted to the pictures.

    ``schedule``: ``one-cycle`` rises linearly over ``warmup`` (a share of all steps) and falls linearly to zero;
    ``cosine`` falls along a half cosine after the warm-up; ``step`` divides by ten at 40 % and 60 % (the paper's 64 k
    and 96 k of 160 k); ``constant`` stays after the warm-up. ``pad`` is the random shift as a share of the side (4 of
    32 pixels in the paper), ``brightness`` and ``contrast`` the largest relative change, ``colour`` that of the
    saturation (a third of it for each channel, as of other light), ``mixup`` the alpha of its Beta distribution (0 =
    off). ``weight_decay`` acts apart from the gradient, as in Keras: where PyTorch or a paper adds it to the gradient,
    with a momentum of 0.9, a tenth of the number has the same effect. ``distillation`` is the weight of the teacher's
    answers in the loss, 0..1, and ``distillation_temperature`` softens them. ``body_rate`` is the learning rate of all
    layers but the last, as a share of the last one's. ``average`` above 0 judges and keeps a moving average of the
    weights, of which each step keeps that share. ``keep_statistics`` normalises with the statistics that the network
    came with, not with those of each batch: few pictures of few places would shift what the layers below had learnt.
    ``patience`` above 0 stops after so many epochs without a better one. ``mask_penalty`` is the weight, in the loss,
    of what the logits of soft masks exceed +-6 by, where a sigmoid hardly changes any more (``training_step.beyond``):
    without it they may grow to thousands, which int8 cannot hold. ``group_balance`` divides the weight of a picture in
    the loss by this power of the number of pictures of its class in its group (a clip, a floor): 0 counts every picture
    alike, 1 every group.

    A recipe from a card is untrusted: ``check`` it before training with it.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    warmup: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-3
    label_smoothing: float = 0.0
    mixup: float = 0.0
    flip: bool = True
    pad: float = 0.125
    brightness: float = 0.0
    contrast: float = 0.0
    colour: float = 0.0
    distillation: float = 0.0
    distillation_temperature: float = 2.0
    body_rate: float = 1.0
    average: float = 0.0
    patience: int = 0
    keep_statistics: bool = False
    mask_penalty: float = 0.0
    group_balance: float = 0.0

    def check(self) -> None:
        """Raise UsageError where the schedule is unknown or a number is outside its limits."""
        if self.schedule not in SCHEDULES:
            raise UsageError(f"schedule {self.schedule!r} is unknown", nearest(self.schedule, SCHEDULES))
        for name, low, high in _LIMITS:
            if not low <= getattr(self, name) <= high:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {getattr(self, name)} is outside {low}..{high}", f"choose another --{flag}")

    def changed(
        self,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        label_smoothing: float | None = None,
        mixup: float | None = None,
        flip: bool | None = None,
        brightness: float | None = None,
        contrast: float | None = None,
        colour: float | None = None,
        distillation: float | None = None,
    ) -> Recipe:
        """Return the recipe with the changes that are not None. Raises UsageError as ``check`` does."""
        changes = {name: value for name, value in locals().items() if name != "self" and value is not None}
        how = dataclasses.replace(self, **changes)
        how.check()
        return how

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate at ``progress``, the share of all steps already made (0..1)."""
        if progress < self.warmup:
            return self.learning_rate * max(progress / self.warmup, 1e-3)
        rest = (progress - self.warmup) / max(1 - self.warmup, 1e-9)
        if self.schedule == "one-cycle":
            return self.learning_rate * (1 - rest)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * rest))
        if self.schedule == "step":
            return self.learning_rate * (1.0 if progress < 0.4 else 0.1 if progress < 0.6 else 0.01)
        return self.learning_rate


RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        # Rises to a high rate and falls to zero in few epochs (Smith and Topin 2017, arXiv 1708.07120).
        Recipe("one-cycle", 30, 128, 0.2, "one-cycle", warmup=0.2, label_smoothing=0.1, mask_penalty=MASK_PENALTY),
        Recipe("cosine", 30, 128, 0.1, "cosine", warmup=0.05, label_smoothing=0.1, mask_penalty=MASK_PENALTY),
        # From a network that has seen other pictures: its last layer is new, those below learn at a tenth of the rate.
        # Light and paint differ from place to place, and a long clip shows its place no better than a short one: on
        # floors held out of the training floors (four areas, 96 pixels), changing colours, and brightness and contrast
        # by 0.3 instead of 0.2, gave 74.5 -> 75.3 % balanced accuracy; counting groups alike as well, 75.8 %.
        Recipe(
            "transfer",
            12,
            64,
            0.01,
            "cosine",
            warmup=0.1,
            weight_decay=1e-4,
            label_smoothing=0.1,
            brightness=0.3,
            contrast=0.3,
            colour=0.3,
            body_rate=0.1,
            average=0.99,
            patience=8,
            keep_statistics=True,
            mask_penalty=MASK_PENALTY,
            group_balance=1.0,
        ),
        # Section 4.1: batch 64, 0.1 divided by ten at 64 k and 96 k of 160 k steps, decay 1e-4: 205 epochs of CIFAR-10.
        # The paper's decay is part of the gradient, where a momentum of 0.9 makes it ten times as strong as the same
        # number apart from it. The paper bounds no masks, so this does not, either.
        Recipe("paper", 205, 64, 0.1, "step", weight_decay=1e-3),
    )
}
QUANTIZE = Recipe(
    "quantize",
    epochs=3,
    batch_size=128,
    learning_rate=0.002,
    schedule="cosine",
    warmup=0.05,
    weight_decay=0.0,  # folded kernels have no normalisation behind them that would undo their shrinking
    distillation=0.9,
)


def preset(name: str) -> Recipe:
    """Return the recipe of that name. Raises UsageError."""
    if name not in RECIPES:
        raise UsageError(f"no recipe is called {name!r}", nearest(name, RECIPES))
    return RECIPES[name]


FITS = ("stretch", "crop")  # how a picture is fitted to the input
PRECISIONS = ("auto", "float32", "bfloat16")
LARGEST_SEED = 2**31 - 1  # TensorFlow takes 32 bits


def check_seed(seed: int) -> None:
    """Raise UsageError unless ``seed`` lies between 0 and ``LARGEST_SEED``."""
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"the seed must be between 0 and {LARGEST_SEED}, not {seed}", "for instance --seed 0")


@dataclass(frozen=True)
class TrainOptions:
    """What `train` is told beside data, network and recipe.

    ``fit_to`` is ``stretch`` or ``crop`` (``card.InputSpec.fit``). ``validation_fraction`` is the share of the training
    pictures on which the best epoch is chosen; whole groups (clips) go to one side, and it is ignored where the data
    names its own validation split. ``start`` is where the weights come from: ``none``, ``auto`` (the shipped network of
    the same architecture, if there is one), the name of a shipped network, or a run folder. ``balance`` weighs
    classes by the inverse of their counts; None does where the largest has 1.5 times the pictures of the smallest.
    ``teacher`` is a run folder or ``.tflite`` whose answers are learnt, too. ``none`` is a folder of pictures of none
    of the classes, for which the network learns to be sure of nothing. ``precision`` is ``float32``, ``bfloat16``, or
    ``auto``, which measures both where the processor has bfloat16. ``skip_bad`` leaves unreadable pictures out.
    ``checkpoint_s`` are the seconds between checkpoints within an epoch.
    """

    fit_to: str = "stretch"
    validation_fraction: float = 0.1
    balance: bool | None = False
    precision: str = "float32"
    seed: int = 0
    skip_bad: bool = False
    checkpoint_s: float = 120.0
    start: str = "none"
    teacher: str = ""
    none: str = ""

    def check(self) -> None:
        """Raise UsageError where the fit or the precision is unknown or the seed out of range."""
        check_seed(self.seed)
        if self.fit_to not in FITS:
            raise UsageError(f"--fit {self.fit_to!r} is unknown", nearest(self.fit_to, FITS))
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision!r} is unknown", nearest(self.precision, PRECISIONS))
