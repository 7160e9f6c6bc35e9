"""Train one of the paper's CIFAR networks on an NVIDIA GPU with PyTorch: train_twin.py NETWORK CIFAR10 OUTPUT.npz

CIFAR10 holds a folder of 32x32 pictures for each class. OUTPUT.npz receives the averaged weights by the names of the
Keras layers, what the network answers to 64 pictures, and the recipe with the curve; `as_run.py` makes a run folder of
it. All pictures are trained on, and none decides anything: the recipe below is fixed, and --seconds or --epochs says
how long. --hold-out leaves pictures out, to choose a recipe on.

The loss is the product's: cross-entropy with label smoothing, plus the penalty of mask logits beyond +-6. Weight decay
is part of the gradient, as in the paper. The network computes in bfloat16; weights, statistics and averages are
float32. One step is one CUDA graph. On one H200, Attention-56 trained at 23,000 pictures/s, Attention-92 at 12,500.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from twin import PARTS, Twin

from edge_ran.architecture import named

BATCH = 512
RATE = 0.4
WARMUP = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
SMOOTHING = 0.1
AVERAGE = 0.99
PAD = 4
MASK_PENALTY, MASK_LIMIT = 1e-3, 6.0
MEASURED = 40  # steps of which the speed is measured


def rgb(path: Path) -> NDArray[np.uint8]:
    found = cv2.imread(str(path))
    if found is None:
        raise SystemExit(f"{path} is no picture")
    return found[..., ::-1].astype(np.uint8)


def read(folder: Path, seed: int) -> tuple[Tensor, Tensor, list[str]]:
    """Pictures, (N, 32, 32, 3) uint8 RGB, and class numbers of a folder of class folders, shuffled; the classes."""
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
    files = [path for name in classes for path in sorted((folder / name).iterdir())]
    order = np.random.default_rng(seed).permutation(len(files))
    with ThreadPoolExecutor() as pool:
        pixels = np.stack(list(pool.map(lambda i: rgb(files[i]), order)))
    numbers = torch.tensor([classes.index(files[i].parent.name) for i in order])
    return torch.from_numpy(pixels), numbers, classes


def normalised(pixels: Tensor, kind: torch.dtype) -> Tensor:
    """(N, 32, 32, 3) uint8 -> (N, 3, 32, 32), channels last, -1..1."""
    return ((pixels.to(torch.float32) - 128) / 128).to(kind).permute(0, 3, 1, 2)


def beyond(logits: Tensor) -> Tensor:
    """What `edge_ran.host.training_step.beyond` computes."""
    excess = F.relu(logits.float().abs() - MASK_LIMIT)
    return torch.where(excess < 1, excess * excess, 2 * excess - 1).mean()


class Trainer:
    """Network, momenta and averages; `step` is one update, on the GPU a replay of its CUDA graph."""

    def __init__(self, name: str, device: str, batch: int, seed: int, compiled: bool) -> None:
        self.twin = Twin(named(name), device, seed)
        self.kind = torch.bfloat16 if device == "cuda" else torch.float32
        if compiled:
            self.twin.compile()
        self.trained = list(self.twin.weights.values())
        self.kernels = [i for i, w in enumerate(self.trained) if w.ndim > 1]
        self.momenta = [torch.zeros_like(w) for w in self.trained]
        self.kept = [*self.trained, *self.twin.statistics.values()]
        self.averages = [w.detach().clone() for w in self.kept]
        self.pixels = torch.zeros(batch, 32, 32, 3, dtype=torch.uint8, device=device)
        self.labels = torch.zeros(batch, dtype=torch.int64, device=device)
        self.rate = torch.zeros((), device=device)
        self.move = torch.zeros((), device=device)
        self.sums = torch.zeros(2, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def compute(self) -> None:
        twin = self.twin
        twin.training = True
        logits = twin(normalised(self.pixels, self.kind))
        loss = F.cross_entropy(logits, self.labels, label_smoothing=SMOOTHING)
        bounded = loss + MASK_PENALTY * sum(beyond(values) for values in twin.mask_logits)
        gradients = torch.autograd.grad(bounded, self.trained)
        with torch.no_grad():
            # In the gradient, where the momentum makes it ten times what decay apart from the gradient is.
            kernels = [self.trained[i].detach() for i in self.kernels]
            torch._foreach_add_([gradients[i] for i in self.kernels], kernels, alpha=WEIGHT_DECAY)
            torch._foreach_mul_(self.momenta, MOMENTUM)
            torch._foreach_add_(self.momenta, gradients)
            change = torch._foreach_mul(self.momenta, MOMENTUM)  # Nesterov's look ahead
            torch._foreach_add_(change, gradients)
            torch._foreach_mul_(change, self.rate)
            torch._foreach_sub_(self.trained, change)
            distance = torch._foreach_sub([w.detach() for w in self.kept], self.averages)
            torch._foreach_mul_(distance, self.move)
            torch._foreach_add_(self.averages, distance)
            hits = (logits.argmax(1) == self.labels).float().mean()
            self.sums += torch.stack([loss.detach(), hits])

    def capture(self) -> None:
        """Compile everything on the steps before, then record one step."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.compute()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.compute()
        torch._foreach_zero_(self.momenta)

    def step(self, pixels: Tensor, labels: Tensor, rate: float, number: int) -> None:
        self.pixels.copy_(pixels)
        self.labels.copy_(labels)
        self.rate.fill_(rate)
        self.move.fill_(1 - min(AVERAGE, (number + 1) / (number + 10)))
        if self.graph is None:
            self.compute()
        else:
            self.graph.replay()

    @torch.no_grad()
    def answers(self, pixels: Tensor, kind: torch.dtype) -> Tensor:
        """Logits of the averaged network, (N, classes)."""
        now = [w.detach().clone() for w in self.kept]
        for value, average in zip(self.kept, self.averages, strict=True):
            value.copy_(average)
        self.twin.training = False
        parts, self.twin.parts = self.twin.parts, dict(PARTS)
        found = torch.cat([self.twin(normalised(p, kind)).float() for p in pixels.split(1000)])
        self.twin.parts = parts
        for value, before in zip(self.kept, now, strict=True):
            value.copy_(before)
        return found


def rate_at(progress: float) -> float:
    if progress < WARMUP:
        return RATE * progress / WARMUP
    return RATE * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


class Batches:
    """Endless batches, augmented on the device: shifted by up to 4 pixels over the mirrored edge, flipped."""

    def __init__(self, x: Tensor, y: Tensor, batch: int, seed: int) -> None:
        padded = F.pad(x.permute(0, 3, 1, 2).float(), (PAD,) * 4, mode="reflect").to(torch.uint8)
        self.padded, self.y, self.batch = padded.permute(0, 2, 3, 1).contiguous(), y, batch
        self.generator = torch.Generator(x.device).manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64, device=x.device)

    def draw(self, high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=self.generator, device=self.y.device)

    def next(self) -> tuple[Tensor, Tensor]:
        if len(self.order) < self.batch:
            self.order = torch.randperm(len(self.y), generator=self.generator, device=self.y.device)
        chosen, self.order = self.order[: self.batch], self.order[self.batch :]
        across = torch.arange(32, device=self.y.device)
        rows = self.draw(2 * PAD + 1, self.batch, 1) + across
        columns = torch.where(self.draw(2, self.batch, 1) == 1, 31 - across, across)
        columns = columns + self.draw(2 * PAD + 1, self.batch, 1)
        return self.padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]], self.y[chosen]


def train(given: argparse.Namespace) -> None:
    begun = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y, labels = read(given.cifar10, given.seed)
    x, y = x.to(device), y.to(device)
    held_x, held_y = x[: given.hold_out], y[: given.hold_out]
    first = x[:64]
    x, y = x[given.hold_out :], y[given.hold_out :]
    batches = Batches(x, y, given.batch, given.seed)
    trainer = Trainer(given.network, device, given.batch, given.seed, given.compile)
    trainer.pixels.copy_(batches.next()[0])
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        trainer.capture()
    print(f"{given.network}: ready after {time.monotonic() - begun:.1f} s", flush=True)
    per_epoch, number = len(y) // given.batch, 0

    def steps(count: int, rate: float | None, total: int) -> float:
        nonlocal number
        start = time.monotonic()
        for _ in range(count):
            at = rate_at(number / total) if rate is None else rate
            trainer.step(*batches.next(), at, number)
            number += 1
        if device == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - start

    measured = min(MEASURED, per_epoch)
    steps(measured, 1e-3, 0)
    speed = measured / steps(measured, 1e-3, 0)
    left = given.seconds - (time.monotonic() - begun)
    epochs = given.epochs or max(1, int(0.97 * left * speed / per_epoch))
    print(f"{speed * given.batch:.0f} pictures/s, {epochs} epochs", flush=True)
    total, number, curve = epochs * per_epoch, 0, []
    for epoch in range(epochs):
        trainer.sums.zero_()
        took = steps(per_epoch, None, total)
        loss, hits = (trainer.sums / per_epoch).tolist()
        curve.append({"epoch": epoch + 1, "loss": round(loss, 4), "accuracy": round(hits, 4)})
        print(epoch + 1, f"loss {loss:.4f} accuracy {hits:.4f} {per_epoch * given.batch / took:.0f}/s", flush=True)
    if given.hold_out:
        right = (trainer.answers(held_x, trainer.kind).argmax(1) == held_y).float().mean()
        print(f"held out: {float(right):.4f} of {len(held_y)}", flush=True)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    names = [*trainer.twin.weights, *trainer.twin.statistics]
    arrays = {n: v.detach().cpu().numpy() for n, v in zip(names, trainer.averages, strict=True)}
    record = {
        "network": given.network, "labels": labels, "epochs": epochs, "batch": given.batch, "rate": RATE,
        "warmup": WARMUP, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "label_smoothing": SMOOTHING,
        "average": AVERAGE, "pad": PAD, "mask_penalty": MASK_PENALTY, "seed": given.seed, "images": len(y),
        "curve": curve,
        "torch": torch.__version__, "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    answers = trainer.answers(first, torch.float32).cpu().numpy()
    np.savez(given.output, pixels=first.cpu().numpy(), answers=answers, record=json.dumps(record), **arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300.0, help="of the whole command, if there are no --epochs")
    parser.add_argument("--hold-out", type=int, default=0, help="pictures to leave out of training and to test on")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    train(parser.parse_args())
