"""Train one of the paper's CIFAR networks with PyTorch: train_twin.py NETWORK CIFAR10 OUTPUT.npz

CIFAR10 holds a folder of 32x32 pictures for each class. OUTPUT.npz receives the averaged weights by the names of the
Keras layers, what the network answers to 64 pictures, and the recipe with the curve; `as_run.py` makes a run folder of
it. All pictures are trained on, and none decides anything: the recipe below is fixed, and --seconds or --epochs says
how long. --hold-out leaves pictures out, to choose a recipe on.

The loss is the product's: cross-entropy with label smoothing, plus the penalty of mask logits beyond +-6. Weight decay
is part of the gradient, as in the paper. The network computes in bfloat16; weights, statistics and averages are
float32.

On an NVIDIA GPU one step is one CUDA graph (one H200: Attention-56 23,000 pictures/s, Attention-92 12,500). On a
processor with AVX-512 BF16 (AMD since Zen 4, Intel's Xeons since Sapphire Rapids, which have AMX too), start one
process for each core; each has its own batch, over which it normalises:

    torchrun --nproc-per-node 2 train_twin.py cifar_attention56 CIFAR10 OUTPUT.npz --epochs 66 --batch 64 --rate 0.1 \\
        --cut-out 12 --state STATE
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from twin import MASK_LIMIT, PARTS, Twin

from edge_ran.architecture import named

BATCH = 512
RATE = 0.4
WARMUP = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
SMOOTHING = 0.1
AVERAGE = 0.99
PAD = 4
MASK_PENALTY = 1e-3
KEPT = ("values", "momenta", "averages")  # what a run needs to go on, beside its curve
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


@torch.no_grad()
def grow(twin: Twin, smaller: Path) -> None:
    """Start as a smaller network that was trained: OUTPUT.npz of it gives the weights of the layers that both have.

    The modules that only this network has start as a multiplication by 1.5: the last kernels of their units and of
    their masks are zero. A stage begins with a normalisation, and the units after the last stage, which begin with
    none, get as much larger. So with the statistics of a batch the network answers what the smaller one does
    (function-preserving growth, arXiv 1511.05641).
    """
    with np.load(smaller) as arrays:
        last = f"stage{len(twin.a.stages)}_module"
        had = {name.split("_")[1] for name in arrays if name.startswith(last)}
        scale = 1.5 ** (twin.a.stages[-1].modules - len(had))
        for values in (twin.weights, twin.statistics):
            for name, value in values.items():
                if name in arrays:
                    value.copy_(torch.from_numpy(arrays[name]))
                    if name.startswith("tail_unit") and name.endswith("_conv3/kernel"):
                        value *= scale
                elif name.endswith(("_conv3/kernel", "_mask_tail2_conv/kernel")):
                    value.zero_()


def grown_from(smaller: Path | None) -> dict[str, object] | None:
    """The record of the smaller network, without its curve."""
    if not smaller:
        return None
    with np.load(smaller) as arrays:
        return {k: v for k, v in json.loads(str(arrays["record"])).items() if k != "curve"}


class Trainer:
    """Network, momenta and averages; `step` is one update, on the GPU a replay of its CUDA graph.

    ``values`` holds all weights, then all statistics, in one vector of which the twin's tensors are views.
    """

    def __init__(self, name: str, device: str, batch: int, seed: int, smaller: Path | None = None) -> None:
        self.twin = twin = Twin(named(name), device, seed)
        if smaller:
            grow(twin, smaller)
        self.kind = torch.bfloat16
        kept = [*twin.weights.values(), *twin.statistics.values()]
        self.values = torch.cat([w.detach().flatten() for w in kept])
        self.count = sum(w.numel() for w in twin.weights.values())  # of weights; statistics follow
        parts = self.values.split([w.numel() for w in kept])
        views = [part.view(w.shape) for part, w in zip(parts, kept, strict=True)]
        self.trained = [view.requires_grad_() for view in views[: len(twin.weights)]]
        twin.weights = dict(zip(twin.weights, self.trained, strict=True))
        twin.statistics = dict(zip(twin.statistics, views[len(twin.weights) :], strict=True))
        self.decay = torch.cat([torch.full((w.numel(),), WEIGHT_DECAY * (w.ndim > 1)) for w in self.trained]).to(device)
        self.momenta = torch.zeros_like(self.values[: self.count])
        self.averages = self.values.clone()
        self.pixels = torch.zeros(batch, 32, 32, 3, dtype=torch.uint8, device=device)
        self.labels = torch.zeros(batch, dtype=torch.int64, device=device)
        self.rate = torch.zeros((), device=device)
        self.move = torch.zeros((), device=device)
        self.sums = torch.zeros(2, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.beyond: Callable[[Tensor], Tensor] = beyond
        if device == "cuda":
            twin.compile()
        else:
            import parts_cpu  # compiles its C++

            twin.parts, self.beyond = parts_cpu.PARTS, parts_cpu.beyond

    def compute(self) -> None:
        twin = self.twin
        twin.training = True
        logits = twin(normalised(self.pixels, self.kind))
        loss = F.cross_entropy(logits, self.labels, label_smoothing=SMOOTHING)
        bounded = loss + MASK_PENALTY * sum(self.beyond(values) for values in twin.mask_logits)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(bounded, self.trained)])
        with torch.no_grad():
            weights, statistics = self.values[: self.count], self.values[self.count :]
            if dist.is_initialized():
                for shared in (gradient, statistics):
                    dist.all_reduce(shared)
                    shared /= dist.get_world_size()
            # In the gradient, where the momentum makes it ten times what decay apart from the gradient is.
            gradient += self.decay * weights
            self.momenta.mul_(MOMENTUM).add_(gradient)
            weights -= self.rate * (gradient + MOMENTUM * self.momenta)  # Nesterov's look ahead
            self.averages.lerp_(self.values, self.move)
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
        self.momenta.zero_()

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
        now = self.values.clone()
        self.values.copy_(self.averages)
        self.twin.training = False
        parts, self.twin.parts = self.twin.parts, dict(PARTS)
        found = torch.cat([self.twin(normalised(p, kind)).float() for p in pixels.split(1000)])
        self.twin.parts = parts
        self.values.copy_(now)
        return found


def rate_at(progress: float) -> float:
    """Share of the highest learning rate."""
    if progress < WARMUP:
        return progress / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


class Batches:
    """An epoch's batches, augmented on the device: shifted by up to 4 pixels over the mirrored edge, flipped, and a
    square of ``cut_out`` pixels, whose centre lies anywhere, is made grey (cut-out, arXiv 1708.04552; 0: none).

    What an epoch holds follows from its number, so that a run can go on. Of several processes, each gets its share.
    """

    def __init__(self, x: Tensor, y: Tensor, batch: int, seed: int, cut_out: int = 0) -> None:
        padded = F.pad(x.permute(0, 3, 1, 2).float(), (PAD,) * 4, mode="reflect").to(torch.uint8)
        self.padded, self.y, self.batch, self.seed = padded.permute(0, 2, 3, 1).contiguous(), y, batch, seed
        self.cut_out = cut_out
        several = dist.is_initialized()
        self.own: int = dist.get_rank() if several else 0
        self.shares: int = dist.get_world_size() if several else 1
        self.per_epoch = len(y) // (batch * self.shares)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.y.device
        generator = torch.Generator(device).manual_seed(self.seed * 100_003 + number)
        order = torch.randperm(len(self.y), generator=generator, device=device)[self.own :: self.shares]
        generator.manual_seed((self.seed * 100_003 + number) * 64 + self.own)
        across = torch.arange(32, device=device)

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(0, high, shape, generator=generator, device=device)

        for chosen in order.split(self.batch)[: self.per_epoch]:
            rows = draw(2 * PAD + 1, self.batch, 1) + across
            columns = torch.where(draw(2, self.batch, 1) == 1, 31 - across, across)
            columns = columns + draw(2 * PAD + 1, self.batch, 1)
            pixels = self.padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
            if self.cut_out:
                starts = draw(32, 2, self.batch, 1) - self.cut_out // 2
                down, right = (across >= starts) & (across < starts + self.cut_out)
                pixels[down[:, :, None] & right[:, None, :]] = 128  # 0 when normalised
            yield pixels, self.y[chosen]


@dataclass
class Run:
    """The epochs that are done, and how to go on with them: ``state`` is written after each epoch."""

    trainer: Trainer
    batches: Batches
    state: Path | None
    curve: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.state and self.state.exists():
            found = torch.load(self.state, map_location=self.trainer.values.device)
            for name in KEPT:
                getattr(self.trainer, name).copy_(found[name])
            self.curve = found["curve"]

    def save(self) -> None:
        if self.state and self.batches.own == 0:
            part = self.state.with_suffix(".part")
            torch.save({"curve": self.curve} | {name: getattr(self.trainer, name) for name in KEPT}, part)
            part.replace(self.state)

    def speed(self) -> float:
        """Steps a second, after some whose rate changes nothing that lasts."""
        for count in (MEASURED, MEASURED):
            start = time.monotonic()
            for pixels, labels in islice(self.batches.epoch(0), count):
                self.trainer.step(pixels, labels, 1e-3, 0)
            if self.trainer.graph:
                torch.cuda.synchronize()
        return MEASURED / (time.monotonic() - start)

    def epoch(self, epochs: int, peak: float) -> None:
        trainer, per_epoch, done = self.trainer, self.batches.per_epoch, len(self.curve)
        trainer.sums.zero_()
        start = time.monotonic()
        for number, (pixels, labels) in enumerate(self.batches.epoch(done), done * per_epoch):
            rate = peak * rate_at(number / (epochs * per_epoch))
            trainer.step(pixels, labels, rate, number)
        if dist.is_initialized():
            dist.all_reduce(trainer.sums)
        loss, hits = (trainer.sums / (per_epoch * self.batches.shares)).tolist()
        pictures = per_epoch * self.batches.batch * self.batches.shares
        self.curve.append({"epoch": done + 1, "loss": round(loss, 4), "accuracy": round(hits, 4)})
        speed = pictures / (time.monotonic() - start)
        if self.batches.own == 0:
            print(done + 1, f"loss {loss:.4f} accuracy {hits:.4f} {speed:.0f}/s", flush=True)
        self.save()


def train(given: argparse.Namespace) -> None:
    begun = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    x, y, labels = read(given.cifar10, given.seed)
    x, y = x.to(device), y.to(device)
    held_x, held_y = x[: given.hold_out], y[: given.hold_out]
    first = x[:64]
    batches = Batches(x[given.hold_out :], y[given.hold_out :], given.batch, given.seed, given.cut_out)
    trainer = Trainer(given.network, device, given.batch, given.seed, given.grow)
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        trainer.pixels.copy_(next(batches.epoch(0))[0])
        trainer.capture()
    run = Run(trainer, batches, given.state)
    print(f"{given.network}: ready after {time.monotonic() - begun:.1f} s, {len(run.curve)} epochs done", flush=True)
    epochs = given.epochs
    if not epochs:
        left = given.seconds - (time.monotonic() - begun)
        epochs = max(1, int(0.97 * left * run.speed() / batches.per_epoch))
    print(f"{epochs} epochs", flush=True)
    while len(run.curve) < epochs:
        run.epoch(epochs, given.rate)
    if batches.own:
        return
    if given.hold_out:
        right = (trainer.answers(held_x, trainer.kind).argmax(1) == held_y).float().mean()
        print(f"held out: {float(right):.4f} of {len(held_y)}", flush=True)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    names, shapes = [*trainer.twin.weights, *trainer.twin.statistics], [w.shape for w in trainer.trained]
    shapes += [w.shape for w in trainer.twin.statistics.values()]
    parts = trainer.averages.split([shape.numel() for shape in shapes])
    arrays = {n: p.view(s).cpu().numpy() for n, p, s in zip(names, parts, shapes, strict=True)}
    record = {
        "network": given.network, "labels": labels, "epochs": epochs, "batch": given.batch * batches.shares,
        "rate": given.rate, "warmup": WARMUP, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY,
        "label_smoothing": SMOOTHING, "average": AVERAGE, "pad": PAD, "cut_out": given.cut_out,
        "mask_penalty": MASK_PENALTY, "seed": given.seed, "images": len(batches.y),
        "grown_from": grown_from(given.grow), "curve": run.curve,
        "torch": torch.__version__, "processes": batches.shares,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
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
    parser.add_argument("--batch", type=int, default=BATCH, help="of one process")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--cut-out", type=int, default=0, help="side of the square that each picture loses, in pixels")
    parser.add_argument("--grow", type=Path, help="OUTPUT.npz of a smaller network that is trained, to start as")
    parser.add_argument("--state", type=Path, help="a file that is written after each epoch, to go on from")
    parser.add_argument("--seed", type=int, default=0)
    try:
        train(parser.parse_args())
    finally:
        if dist.is_initialized():  # its threads abort a process that ends without this
            dist.destroy_process_group()
