"""A folder of static files that classifies what a phone's camera sees, in its browser, also without a network.

The site carries pixels and the answers that this machine computes for them: the page checks the browser's answers
against these before it shows any, and a GPU's against the CPU's. Every file but the model is the same for all models.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import catalogue, records
from edge_ran.card import InputSpec, Overrides
from edge_ran.classifier import Classifier
from edge_ran.errors import InputError, OutputExists
from edge_ran.files import atomic_folder, check_replaced_folder, sha256
from edge_ran.graph import Graph, TensorSpec, read_graph
from edge_ran.phone import assets
from edge_ran.picture import read_picture
from edge_ran.pictures import some_pictures
from edge_ran.preprocess import Preprocessor, dequantise, fit_pixels
from edge_ran.runtime import RuntimeOptions, agreement

PAGES = Path(__file__).with_name("page")
CHECK_PICTURES = 8
FOR_CPUS = ("int8", "dynamic")  # precisions that CPUs run faster than float ones
LARGEST_MODEL_BYTES = 128 << 20  # a phone's browser ends a page that takes more


@dataclass(frozen=True)
class SiteTensor:
    """An input or output as the browser must read it: ``scale`` 0 = real numbers as they are."""

    dtype: str
    scale: float
    zero_point: int
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class SiteFile:
    """One model file of the site. ``table`` is the input's bytes for pixel values 0..255 of the three channels;
    ``allowed_error`` the relative error up to which a browser's answers differ by rounding only."""

    path: str
    sha256: str
    size_bytes: int
    precision: str
    runs_on: tuple[str, ...]
    needs_jspi: bool
    input: SiteTensor
    outputs: tuple[SiteTensor, ...]
    table: tuple[int, ...]
    answers: str
    allowed_error: float


@dataclass(frozen=True)
class Probe:
    """A picture, and the pixels that it must become."""

    picture: str
    pixels: str


@dataclass(frozen=True)
class Check:
    """The ``pictures`` that every accelerator is checked on, as one file of fitted pixels."""

    pixels: str
    pictures: int
    probe: Probe


@dataclass(frozen=True)
class AnswerRule:
    """How scores become an answer, as ``edge-ran run`` does it."""

    gives_probabilities: bool
    temperature: float
    smoothing: float
    threshold: float
    margin: float = 0.05


@dataclass(frozen=True)
class Limits:
    """What still counts as agreement: ``runtime.agreement``'s limits."""

    largest_difference: float = agreement.LARGEST_DIFFERENCE
    fewest_levels: int = agreement.FEWEST_LEVELS


@dataclass(frozen=True)
class SiteConfig:
    """All that the page reads: ``config.json`` of a site."""

    SCHEMA_VERSION: ClassVar[int] = 1

    name: str
    labels: tuple[str, ...]
    masks: tuple[str, ...]
    input: InputSpec
    answer: AnswerRule
    files: tuple[SiteFile, ...]
    check: Check
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Site:
    """What ``export_site`` made. ``version`` changes with every file of the site."""

    SCHEMA_VERSION: ClassVar[int] = 1

    folder: Path
    version: str
    size_bytes: int
    files: tuple[str, ...]
    models: tuple[str, ...]
    runs_on: tuple[Literal["wasm", "webgpu"], ...]


@dataclass(frozen=True)
class SiteOptions:
    """How the page answers: ``smoothing`` 0 up to, not including, 1, ``threshold`` 0..1; what replaces the metadata."""

    smoothing: float = 0.8
    threshold: float = 0.0
    overrides: Overrides = field(default_factory=Overrides)


def export_site(
    models: Sequence[Path],
    target: Path,
    options: SiteOptions | None = None,
    *,
    web_runtime: Path | None = None,
    force: bool = False,
) -> Site:
    """Write the site to the folder ``target``, whole or not at all.

    Args:
        models: one ``.tflite``, or several of the same network: the CPU takes the first int8 or dynamic one, a GPU
            the first other one; without such a file, the first one.
        target: a folder that is not there yet, or with ``force`` one that an earlier export made.
        options: how the page answers.
        web_runtime: a folder with LiteRT.js's tarballs, see ``assets.unpack``.
        force: replace ``target``.

    Raises:
        InputError: browsers cannot run a model, it has no labels, or two models differ in labels or input.
        OutputExists: ``target`` is there.
        UsageError: the command runs in ``target``.
        EnvironmentMissing: the web runtime is not here.
    """
    options = options or SiteOptions()
    if target.exists() and not (force and (target / "config.json").is_file()):
        what = "is there" if not force else "is no site of edge-ran's"
        raise OutputExists(f"{target} {what}", "choose another folder, or add --force to replace an earlier site")
    check_replaced_folder(target)
    runtime = assets.find(web_runtime)
    with atomic_folder(target) as fresh:
        config = _write_models(models, fresh, options)
        (fresh / "config.json").write_text(json.dumps(records.document(config), ensure_ascii=False), "utf-8")
        _write_pages(fresh, runtime, config.name)
        version, names = write_service_worker(fresh)
    return Site(
        folder=target,
        version=version,
        size_bytes=sum((target / name).stat().st_size for name in names),
        files=names,
        models=tuple(one.path for one in config.files),
        runs_on=("wasm", "webgpu") if any("webgpu" in one.runs_on for one in config.files) else ("wasm",),
    )


def cpu_first(models: Sequence[Path]) -> list[Graph]:
    """Return the files' graphs, in front those that the CPU is to run, else in their order. Raises InputError."""
    return sorted(map(read_graph, models), key=lambda graph: graph.precision not in FOR_CPUS)


def _write_models(models: Sequence[Path], folder: Path, options: SiteOptions) -> SiteConfig:
    graphs = cpu_first(models)
    are_all_for_cpus = graphs[-1].precision in FOR_CPUS
    frames = _check_frames()
    (folder / "model").mkdir()
    (folder / "check").mkdir()
    configs = []
    for number, graph in enumerate(graphs):
        # A GPU gets the float files, if there are any.
        is_for_gpus = are_all_for_cpus or graph.precision not in FOR_CPUS
        configs.append(_write_model(graph, folder, frames, options, number, is_for_gpus))
    first = configs[0]
    for graph, other in zip(graphs, configs, strict=True):
        if (other.labels, other.input) != (first.labels, first.input):
            what = f"{graph.path} has other labels or another input than {graphs[0].path}"
            raise InputError(what, "export them one by one")
    fitted = np.stack([fit_pixels(frame, first.input) for frame in frames])
    (folder / first.check.pixels).write_bytes(fitted.tobytes())
    cv2.imwrite(str(folder / first.check.probe.picture), frames[0])
    (folder / first.check.probe.pixels).write_bytes(fitted[0].tobytes())
    return SiteConfig(
        first.name, first.labels, first.masks, first.input, first.answer,
        tuple(one.files[0] for one in configs), first.check,
    )  # fmt: skip


def _write_model(
    graph: Graph,
    folder: Path,
    frames: Sequence[NDArray[np.uint8]],
    options: SiteOptions,
    number: int,
    is_for_gpus: bool,
) -> SiteConfig:
    path = graph.path
    check_for_browsers(graph)
    with Classifier(path, RuntimeOptions(accelerator="cpu"), overrides=options.overrides) as classifier:
        if options.overrides.labels is None and not (classifier.card and classifier.card.labels):
            raise InputError(f"{path} has no labels", "add --labels FILE, one per line")
        classifier.check_size()
        if classifier.place:
            raise InputError(f"{path}: the page reads the first output alone", f"edge-ran run {shlex.quote(str(path))}")
        spec, card, labels = classifier.spec, classifier.card, classifier.labels
        answers = []
        for frame in frames:
            classifier.scores(frame)  # tells whether they are probabilities, and refuses what are no numbers
            outputs = classifier.runtime.run(classifier.prepare(frame))
            tensors = classifier.runtime.outputs
            answers += [dequantise(values, tensor).reshape(-1) for values, tensor in zip(outputs, tensors, strict=True)]
        probabilities = classifier.gives_probabilities
    stem = re.sub(r"[#?%\\]", "_", path.stem)  # what an address cannot name
    name = f"model/{number}-{stem}.tflite" if number else f"model/{stem}.tflite"
    answers_path = f"check/{number}.f32"
    shutil.copyfile(path, folder / name)
    (folder / answers_path).write_bytes(np.concatenate(answers).astype("<f4").tobytes())
    file = SiteFile(
        path=name,
        sha256=sha256(folder / name),
        size_bytes=(folder / name).stat().st_size,
        precision=card.precision if card else "",
        runs_on=("wasm", "webgpu") if is_for_gpus else ("wasm",),
        needs_jspi=graph.inputs[0].dtype != "float32",
        input=_tensor(graph.inputs[0]),
        outputs=tuple(_tensor(one) for one in graph.outputs),
        table=_table(spec, graph.inputs[0]),
        answers=answers_path,
        allowed_error=agreement.allowed(graph.precision, "fp16"),  # a browser may choose half precision on its GPU
    )
    return SiteConfig(
        name=card.name if card else path.stem,
        labels=labels,
        masks=card.masks if card else (),
        input=spec,
        answer=AnswerRule(probabilities, card.temperature if card else 1.0, options.smoothing, options.threshold),
        files=(file,),
        check=Check("check/pixels.u8", len(frames), Probe("check/probe.png", "check/probe.u8")),
    )


def check_for_browsers(graph: Graph) -> None:
    """Raise InputError where LiteRT.js cannot run the file."""
    size = graph.path.stat().st_size
    if size > LARGEST_MODEL_BYTES:
        raise InputError(
            f"{graph.path} has {size / 1e6:.0f} MB, more than a phone's browser takes", "edge-ran convert --int8"
        )
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.dtype not in ("float32", "uint8"):
            remedy = "edge-ran convert --int8 --io uint8"
            raise InputError(f"{graph.path}: browsers cannot read or write {tensor.dtype} ({tensor.name})", remedy)
    if len(graph.inputs) != 1 or not graph.inputs[0].fixed or graph.inputs[0].shape[0] != 1:
        raise InputError(
            f"{graph.path}: browsers need one input with a batch of 1", "make such a file: edge-ran convert RUN"
        )
    picture = graph.inputs[0].picture
    if picture is None or not picture.is_usual or graph.outputs[0].shape[-1:] < (2,):
        what = f"the page gives (1, H, W, 3) and takes (1, classes), not {graph.inputs[0].shape} and "
        raise InputError(f"{graph.path}: {what}{graph.outputs[0].shape}", "import its Keras file: edge-ran import FILE")


def _tensor(tensor: TensorSpec) -> SiteTensor:
    return SiteTensor(tensor.dtype, tensor.scale, tensor.zero_point, tensor.shape, int(np.prod(tensor.shape)))


def _table(spec: InputSpec, tensor: TensorSpec) -> tuple[int, ...]:
    """The input for every pixel value, (256, 3), as little-endian bytes: what ``Preprocessor`` looks up, too."""
    values = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)  # (256, 1, 3): one column of pixels
    column = InputSpec(256, 1, spec.mean, spec.std, "bgr")
    whole = TensorSpec(**{**tensor.__dict__, "shape": (1, 256, 1, 3)})
    made = Preprocessor(column, whole)(values)
    return tuple(made.astype(made.dtype.newbyteorder("<")).tobytes())


def _check_frames() -> list[NDArray[np.uint8]]:
    folder = catalogue.folder("calibration_data")
    return [read_picture(path) for path in some_pictures(folder, CHECK_PICTURES)]


def _write_pages(folder: Path, runtime: Path, name: str) -> None:
    for page in sorted(PAGES.iterdir()):
        shutil.copyfile(page, folder / page.name)
    (folder / "litert").mkdir()
    for asset in assets.FILES:
        shutil.copyfile(runtime / asset, folder / "litert" / asset)
    manifest = json.loads((folder / "manifest.webmanifest").read_text("utf-8"))
    manifest["name"] = f"{name} – edge-ran"
    (folder / "manifest.webmanifest").write_text(json.dumps(manifest, ensure_ascii=False), "utf-8")


def write_service_worker(folder: Path) -> tuple[str, tuple[str, ...]]:
    """Tell the service worker which files to keep, and a version that changes with any of them."""
    script = folder / "sw.js"
    names = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p != script))
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name} {sha256(folder / name)}\n".encode())
    version = f"edge-ran-{digest.hexdigest()[:16]}"
    kept = json.dumps(["./", *names])
    text = script.read_text("utf-8").replace("VERSION_OF_THE_SITE", version)
    script.write_text(text.replace('["FILES_OF_THE_SITE"]', kept), "utf-8")
    return version, (*names, "sw.js")
