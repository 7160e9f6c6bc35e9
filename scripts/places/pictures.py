"""MiniPlaces as arrays, and what the teacher says of each picture: made once, kept in a cache folder.

`pictures.npy` (N, 72, 72, 3) uint8 RGB; `labels.npy` (N,) int32; `validation.npy` (N,) bool; `classes.txt`;
`embeddings.npy` (N, 1280) float16, the teacher's at 128 pixels; `soft.npy` (N, classes) float16, the logits of a
linear head on them that is trained on the training part.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray
from teacher import EMBEDDING, MEAN, SCALE, efficientnet_lite

from edge_ran.errors import InputError
from edge_ran.files import atomic_path

SIDE = 72
VALIDATION = 50  # pictures of a class
TEACHER_SIZE = 128
_BLOCK = 512


@dataclass(frozen=True)
class Places:
    """The pictures and the teacher's answers; the big arrays are memory-mapped."""

    classes: tuple[str, ...]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]
    validation: NDArray[np.bool_]
    embeddings: NDArray[np.float16]
    soft: NDArray[np.float16]


def load(source: Path, weights: Path, cache: Path) -> Places:
    """Read MiniPlaces (``source/<class>/*.webp``), or what was kept of it in ``cache``.

    Raises:
        InputError: there are no pictures, or one cannot be read.
    """
    cache.mkdir(parents=True, exist_ok=True)
    classes = tuple(sorted(p.name for p in source.iterdir() if p.is_dir())) if source.is_dir() else ()
    files = [path for name in classes for path in sorted((source / name).glob("*.webp"))]
    if not files:
        raise InputError(f"{source} holds no class folders of .webp pictures", "unpack MiniPlaces there")
    labels = np.array([classes.index(path.parent.name) for path in files], np.int32)
    validation = _validation([f"{p.parent.name}/{p.name}" for p in files], labels)
    pixels = _decoded(files, cache / "pictures.npy")
    embeddings = _embedded(pixels, weights, cache / "embeddings.npy")
    soft = _soft(embeddings, labels, validation, len(classes), cache / "soft.npy")
    return Places(classes, pixels, labels, validation, embeddings, soft)


def _validation(names: list[str], labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The ``VALIDATION`` pictures of each class whose name's hash is smallest: the same ones for everyone."""
    digests = np.array([hashlib.sha256(name.encode()).hexdigest() for name in names])
    chosen = np.zeros(len(names), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen[rows[np.argsort(digests[rows])[:VALIDATION]]] = True
    return chosen


def _decoded(files: list[Path], path: Path) -> NDArray[np.uint8]:
    if not path.exists():
        with atomic_path(path) as temporary:
            shape = (len(files), SIDE, SIDE, 3)
            pixels = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)

            def decode(index: int) -> None:
                picture = cv2.imread(str(files[index]))
                if picture is None or picture.shape != (SIDE, SIDE, 3):
                    raise InputError(f"{files[index]} is no {SIDE}x{SIDE} picture", "take MiniPlaces at 72 pixels")
                pixels[index] = picture[..., ::-1]

            with ThreadPoolExecutor() as pool:
                list(pool.map(decode, range(len(files))))
            pixels.flush()
    return np.load(path, mmap_mode="r")


def _embedded(pixels: NDArray[np.uint8], weights: Path, path: Path) -> NDArray[np.float16]:
    """The teacher's embeddings; a killed run goes on after the last whole block."""
    if path.exists():
        return np.load(path, mmap_mode="r")
    partial, done = path.with_suffix(".partial.npy"), path.with_suffix(".done")
    start = int(done.read_text()) if done.exists() and partial.exists() else 0
    kept = np.lib.format.open_memmap(
        partial, "r+" if start else "w+", np.float16, None if start else (len(pixels), EMBEDDING)
    )
    network = efficientnet_lite(TEACHER_SIZE, weights)

    @tf.function(reduce_retracing=True)
    def embed(x: tf.Tensor) -> tf.Tensor:
        x = tf.image.resize(tf.cast(x, tf.float32), (TEACHER_SIZE, TEACHER_SIZE), "bicubic")
        return network((x - MEAN) / SCALE, training=False)

    for first in range(start, len(pixels), _BLOCK):
        block = pixels[first : first + _BLOCK]
        kept[first : first + _BLOCK] = np.concatenate([embed(block[i : i + 64]) for i in range(0, len(block), 64)])
        kept.flush()
        done.write_text(str(first + _BLOCK))
    partial.rename(path)
    return np.load(path, mmap_mode="r")


def _soft(
    embeddings: NDArray[np.float16],
    labels: NDArray[np.int32],
    validation: NDArray[np.bool_],
    classes: int,
    path: Path,
    epochs: int = 20,
) -> NDArray[np.float16]:
    """Logits of a linear head on the standardised embeddings, trained on the training part."""
    if not path.exists():
        tf_keras.utils.set_random_seed(0)
        x = embeddings.astype(np.float32)
        mean, std = x[~validation].mean(0), x[~validation].std(0) + 1e-3
        x = (x - mean) / std
        head = tf_keras.Sequential([tf_keras.layers.Dropout(0.2), tf_keras.layers.Dense(classes)])
        steps = epochs * (int((~validation).sum()) // 512)
        rate = tf_keras.optimizers.schedules.CosineDecay(1e-3, steps)
        head.compile(
            tf_keras.optimizers.AdamW(rate, weight_decay=1e-2),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=None),
        )
        head.fit(x[~validation], labels[~validation], batch_size=512, epochs=epochs, verbose=0)
        logits = head.predict(x, batch_size=4096, verbose=0)
        top = logits[validation].argsort(1)[:, ::-1]
        hits = top[:, :5] == labels[validation][:, None]
        print(f"teacher's linear head, validation: top-1 {hits[:, 0].mean():.4f}, top-5 {hits.any(1).mean():.4f}")
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, logits.astype(np.float16))
    return np.load(path)
