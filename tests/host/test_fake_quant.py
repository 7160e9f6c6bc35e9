"""The network with fake quantisation, compared with the integer file that the converter makes of it."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_ran import catalogue, graph
from edge_ran.card import InputSpec
from edge_ran.errors import InputError
from edge_ran.preprocess import Preprocessor, normalise, quantise
from edge_ran.runtime import open_runtime

tf_keras = pytest.importorskip("tf_keras")
pytest.importorskip("tensorflow_model_optimization")

from edge_ran.architecture import Architecture, Stage  # noqa: E402
from edge_ran.host import fake_quant, networks, rewrites  # noqa: E402
from edge_ran.host.convert import check_scales  # noqa: E402
from edge_ran.host.flatbuffer import flatbuffer  # noqa: E402
from edge_ran.host.integer_layers import file_scale  # noqa: E402

# Two poolings with a skip connection in the mask, a unit that strides, and one that widens.
TINY = Architecture("tiny", 16, 4, 3, 8, 1, 2, (Stage(16, 8, 1, 1, 2),), ((8, 32, 2),), 0, 1, 0, mask_pool=2)
# Every option of `configure`, one at a time, and the two that meet in indoor56.
OPTIONS = {
    "plain": {"r": 1},  # as in "carried", and nowhere else, with a unit between two poolings of the mask
    "channel": {"attention": "channel"},
    "spatial": {"attention": "spatial"},
    "naive": {"learning": "naive"},
    "no-mask": {"mask": False},
    "nearest": {"upsampling": "nearest"},
    "linear-tail": {"mask_tail": "linear"},
    "projection": {"shortcut": "projection"},
    "indoor": {"shortcut": "projection", "mask_tail": "linear", "bias": True, "final_norm": False, "stem_kernel": 5},
    "overlapping-pool": {"mask_pool": 3},
    "grouped": {"groups": 4, "bottleneck_ratio": 2},
    "nearest-linear-naive": {"upsampling": "nearest", "mask_tail": "linear", "learning": "naive"},
    "nearest-spatial": {"upsampling": "nearest", "attention": "spatial"},
    "carried": {"r": 1},
    "carried-projection": {"shortcut": "projection", "mask_tail": "linear", "bias": True},
}
CARRIED = ("carried", "carried-projection")  # with scales above zero, so that sums carry their units' shifts


def trained(architecture: Architecture, seed: int = 0, *, turned: float = 0.1) -> tf_keras.Model:
    """A network with the statistics of a trained one: normalisations that scale, shift and turn some signs."""
    tf_keras.utils.set_random_seed(seed)
    model = networks.build(architecture)
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            count = layer.gamma.shape[0]
            gamma = random.uniform(0.5, 1.5, count) * np.where(random.random(count) < turned, -1, 1)
            beta, mean = random.normal(0, 0.3, count), random.normal(0, 0.3, count)
            layer.set_weights([gamma, beta, mean, random.uniform(0.5, 2, count)])
    return told_apart(model)


@functools.cache
def _rewritten(name: str) -> tuple[Any, list[NDArray[np.float32]]]:
    network = trained(dataclasses.replace(TINY, **OPTIONS[name]), turned=0.0 if name in CARRIED else 0.1)
    model = rewrites.rewrite(network).model
    return model, model.get_weights()


def rewritten(name: str) -> tf_keras.Model:
    """The rewritten network of an option, built once a session; its weights are as they were then."""
    model, weights = _rewritten(name)
    model.set_weights(weights)
    return model


def told_apart(model: tf_keras.Model) -> tf_keras.Model:
    """Let its logits vary from picture to picture around zero, as training would make them."""
    last = model.get_layer("logits")
    logits = tf_keras.Model(model.input, last.output)(normalised(smooth_pixels(64, 16))).numpy()
    kernel, bias = last.get_weights()
    scale = 2 / logits.std(0)
    last.set_weights([kernel * scale, (bias - logits.mean(0)) * scale])
    return model


def normalised(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (pixels.astype(np.float32) - 128) / 128


def smooth_pixels(count: int, side: int, seed: int = 1) -> NDArray[np.uint8]:
    """Pictures of blurred noise, (count, side, side, 3) uint8 over the whole range."""
    noise = np.random.default_rng(seed).normal(size=(count, side // 4, side // 4, 3))
    wide = noise.repeat(4, 1).repeat(4, 2) + 0.3 * np.random.default_rng(seed + 1).normal(size=(count, side, side, 3))
    return np.clip(128 + 60 * wide, 0, 255).astype(np.uint8)


def integer_file(model: tf_keras.Model, ranges: fake_quant.Ranges, spec: InputSpec, path: Path) -> graph.Graph:
    network = fake_quant.as_deployed(fake_quant.fake_quantise(model, ranges, for_converter=True))
    path.write_bytes(flatbuffer(network, catalogue.converter("int8"), spec, io="int8"))
    return graph.read_graph(path)


def answers(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The file's int8 outputs on the CPU, counted from 0: (N, classes)."""
    with open_runtime(path, accelerator="cpu", threads=1) as runtime:
        inputs = (pixels.astype(np.int16) - 128).astype(np.int8)
        return np.concatenate([np.array(runtime.run(x[None])[0], np.int64) for x in inputs]) + 128


@pytest.mark.parametrize("name", OPTIONS)
def test_the_file_computes_what_the_rounding_network_computes(name: str, tmp_path: Path) -> None:
    architecture = dataclasses.replace(TINY, **OPTIONS[name])
    spec = InputSpec(16, 16)
    model = rewritten(name)
    pixels = smooth_pixels(96, 16)
    ranges = fake_quant.calibrate(model, pixels[:64], spec)
    fake_quant.snap(model, ranges)
    rounded = fake_quant.fake_quantise(model, ranges)
    made = integer_file(model, ranges, spec, tmp_path / "m.tflite")

    assert (made.inputs[0].scale, made.inputs[0].zero_point) == (1 / 128, 0)  # exactly pixel - 128
    assert (made.outputs[0].scale, made.outputs[0].zero_point) == (1 / 256, -128)
    in_float = fake_quant.float_layers(model, ranges)
    assert bool(in_float) == bool(made.float_operators) == (architecture.attention == "spatial")
    assert all("spatialnorm" in layer for layer in in_float)
    if architecture.attention != "mixed":
        assert {found.operator.name for found in graph.gpu_warnings(made)} <= {"L2_NORMALIZATION"}
    else:
        assert made.inner_quantize == []
        assert [found.operator.name for found in graph.xnnpack_unsupported(made)] == ["SOFTMAX"]  # once, at the end

    expected = np.round(fake_quant.as_deployed(rounded)(normalised(pixels)).numpy() * 256)
    actual = answers(tmp_path / "m.tflite", pixels)
    difference = np.abs(actual - expected)
    assert np.ptp(expected, axis=0).max() > 20  # the pictures are told apart, so that equality says something
    # Bit for bit nearly always: float32 noise tips a value over a tie now and then, which may spread.
    assert (difference.max(1) == 0).mean() > 0.8
    assert (actual.argmax(1) == expected.argmax(1)).mean() > 0.95
    exact = fake_quant.as_deployed(fake_quant.fake_quantise(model, ranges, exact=True))
    integers = np.round(exact(normalised(pixels)).numpy() * 256)
    np.testing.assert_array_equal(actual, integers)


def foreign(end: str = "sigmoid") -> tf_keras.Model:
    """What networks of other scripts are made of: padding, crops, gates, squeeze and excitation, sums of several."""
    kl = tf_keras.layers
    tf_keras.utils.set_random_seed(3)
    image = kl.Input((16, 16, 3))
    x = kl.ReLU()(kl.Conv2D(8, 3, 2)(kl.ZeroPadding2D(1)(image)))
    x = kl.Multiply()([x, kl.Activation(end)(kl.Conv2D(8, 1)(x))])
    y = kl.ReLU(6.0)(kl.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x))
    y = kl.AveragePooling2D(2, 1, "same")(kl.Cropping2D(1)(kl.ZeroPadding2D(1)(y)))
    x = kl.Concatenate()([kl.LeakyReLU(0.1)(kl.Conv2D(8, 1)(x)), y])
    squeeze = kl.Conv2D(4, 1, bias_initializer="ones")(kl.GlobalAveragePooling2D(keepdims=True)(x))
    squeeze = kl.Conv2D(24, 1)(kl.ReLU()(squeeze))
    six = kl.ReLU(6.0)(kl.DepthwiseConv2D(1, bias_initializer=tf_keras.initializers.Constant(3.0))(squeeze))
    x = kl.Multiply()([x, kl.DepthwiseConv2D(1, depthwise_initializer=tf_keras.initializers.Constant(1 / 6))(six)])
    x = kl.ReLU(5.0)(kl.Add()([x, kl.Conv2D(24, 3, padding="same")(x), kl.DepthwiseConv2D(3, padding="same")(x), x]))
    x = kl.ReLU(0.5)(kl.Multiply()([x, kl.Conv2D(24, 1)(x), kl.Activation("sigmoid")(x)]))
    x = kl.Dense(5, name="logits")(kl.GlobalAveragePooling2D()(kl.ReLU(0.25)(x)))
    return told_apart(tf_keras.Model(image, kl.Activation("softmax")(x), name="foreign"))


@pytest.mark.parametrize("end", ["sigmoid", "tanh", "softmax"])
def test_the_layers_of_other_scripts_are_rounded_as_the_file_rounds_them(end: str, tmp_path: Path) -> None:
    spec = InputSpec(16, 16, (127.5,) * 3, (127.5,) * 3)
    model = rewrites.rewrite(foreign(end)).model
    fake_quant.check(model)
    pixels = smooth_pixels(96, 16)
    ranges = fake_quant.calibrate(model, pixels[:64], spec)
    fake_quant.snap(model, ranges)
    made = integer_file(model, ranges, spec, tmp_path / "m.tflite")
    assert (made.float_operators, fake_quant.float_layers(model, ranges)) == ([], ())
    expected = np.round(fake_quant.as_deployed(fake_quant.fake_quantise(model, ranges))((pixels - 127.5) / 127.5) * 256)
    with open_runtime(tmp_path / "m.tflite", accelerator="cpu", threads=1) as runtime:
        prepare = Preprocessor(spec, runtime.input)
        found = [runtime.run(prepare(np.ascontiguousarray(x[..., ::-1])))[0].astype(int) + 128 for x in pixels]
    difference = np.abs(np.concatenate(found) - expected)
    assert np.ptp(expected, axis=0).max() > 20
    # Random weights spread the logits widely: a tie that falls the other way is a few steps of the softmax.
    assert (difference.max(1) <= 4).mean() > 0.9
    assert difference.max() < 16
    assert (np.concatenate(found).argmax(1) == expected.argmax(1)).mean() > 0.9
    exact = fake_quant.as_deployed(fake_quant.fake_quantise(model, ranges, exact=True))
    integers = np.round(exact((pixels - 127.5) / 127.5) * 256)
    np.testing.assert_array_equal(np.concatenate(found), integers)


def test_concatenations_of_concatenations_have_one_scale(tmp_path: Path) -> None:
    """A dense block (Huang et al. 2017, arXiv 1608.06993): the converter has nothing to scale again."""
    kl = tf_keras.layers
    tf_keras.utils.set_random_seed(4)
    image = kl.Input((16, 16, 3))
    x = kl.Conv2D(8, 3, 2)(image)
    for factor in (0.5, 2.0, 1.0):
        widely = tf_keras.initializers.VarianceScaling(factor)
        x = kl.Concatenate()([x, kl.Conv2D(4, 1, kernel_initializer=widely)(kl.ReLU()(x))])
    x = kl.Dense(5, name="logits")(kl.GlobalAveragePooling2D()(x))
    model = rewrites.rewrite(told_apart(tf_keras.Model(image, kl.Activation("softmax")(x)))).model
    pixels = smooth_pixels(64, 16)
    ranges = fake_quant.calibrate(model, pixels, InputSpec(16, 16))
    fake_quant.snap(model, ranges)
    made = integer_file(model, ranges, InputSpec(16, 16), tmp_path / "m.tflite")
    assert made.inner_quantize == []
    assert len({op.outputs[0].scale for op in made.operators if op.name == "CONCATENATION"}) == 1
    exact = fake_quant.as_deployed(fake_quant.fake_quantise(model, ranges, exact=True))
    np.testing.assert_array_equal(answers(tmp_path / "m.tflite", pixels), np.round(exact(normalised(pixels)) * 256))


def test_a_picture_is_rounded_as_the_preprocessor_rounds_it() -> None:
    """With a mean and deviation for each colour, of which some pixels lie just below a half."""
    spec = InputSpec(16, 16, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    model = rewritten("plain")
    ranges = fake_quant.calibrate(model, smooth_pixels(8, 16), spec)
    rounded = fake_quant.fake_quantise(model, ranges)
    scale = file_scale(ranges[model.layers[0].name])
    tensor = graph.TensorSpec("", (1, 16, 16, 3), "int8", float(scale.step), scale.zero)
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    image = tf_keras.Model(rounded.input, rounded.layers[1].output)(normalise(pixels, spec))
    np.testing.assert_array_equal(np.round(image / scale.step) + scale.zero, quantise(normalise(pixels, spec), tensor))


@pytest.mark.parametrize(("mean", "ends"), [(-127.5, (0.0, 1.5)), (382.5, (-1.5, 0.0))])
def test_the_images_range_holds_zero_and_all_pixels(mean: float, ends: tuple[float, float]) -> None:
    """Also of a network that scales pixels to 0.5..1.5 or to -1.5..-0.5."""
    image = tf_keras.layers.Input((4, 4, 3), name="image")
    x = tf_keras.layers.Dense(3)(tf_keras.layers.GlobalAveragePooling2D()(image))
    model = tf_keras.Model(image, tf_keras.layers.Activation("softmax")(x))
    ranges = fake_quant.calibrate(model, smooth_pixels(8, 4), InputSpec(4, 4, (mean,) * 3, (255.0,) * 3))
    assert ranges["image"] == pytest.approx(ends)


def test_a_mean_near_a_tie_is_rounded_with_its_zero_points(tmp_path: Path) -> None:
    """XNNPACK adds the zero points in float32, which makes a tie of 4.4999995 that falls to the even stored number."""
    kl = tf_keras.layers
    image = kl.Input((4, 4, 3))
    pool = kl.GlobalAveragePooling2D(name="pool")(image)
    differences = tf_keras.initializers.Constant([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    x = kl.Dense(4, kernel_initializer=differences, name="logits")(pool)
    model = tf_keras.Model(image, kl.Activation("softmax")(x))
    spec = InputSpec(4, 4, (9.0,) * 3, (32.0,) * 3)
    # A step of the mean is 4/3 of the image's and a little more: every fourth grey is a little below a half.
    step = 4 / 3 / 32 * (1 + 1.2e-7)
    ranges = {**fake_quant.calibrate(model, smooth_pixels(8, 4), spec), "pool": (-39 * step, 216 * step)}
    fake_quant.snap(model, ranges)
    integer_file(model, ranges, spec, tmp_path / "m.tflite")
    greys = np.arange(256, dtype=np.uint8)
    pixels = np.stack([greys, np.roll(greys, 100), np.roll(greys, 40)], -1)[:, None, None].repeat(4, 1).repeat(4, 2)
    exact = fake_quant.as_deployed(fake_quant.fake_quantise(model, ranges, exact=True))
    expected = np.round(exact((pixels.astype(np.float32) - 9) / 32) * 256)
    assert np.ptp(expected[:, :3], axis=0).min() > 100
    np.testing.assert_array_equal(answers(tmp_path / "m.tflite", pixels), expected)


def dead() -> tf_keras.Model:
    """A squeeze whose ReLU gives 0 for every picture, as narrow ones of trained networks may."""
    kl = tf_keras.layers
    tf_keras.utils.set_random_seed(5)
    image = kl.Input((16, 16, 3))
    x = kl.ReLU()(kl.Conv2D(8, 3, 2)(image))
    low = tf_keras.initializers.Constant(-50.0)
    squeeze = kl.ReLU()(
        kl.Conv2D(2, 1, bias_initializer=low, name="squeeze")(kl.GlobalAveragePooling2D(keepdims=True)(x))
    )
    x = kl.Multiply()([x, kl.Activation("sigmoid")(kl.Conv2D(8, 1)(squeeze))])
    x = kl.Dense(5, name="logits")(kl.GlobalAveragePooling2D()(x))
    return told_apart(tf_keras.Model(image, kl.Activation("softmax")(x)))


def test_a_layer_that_is_always_zero_gets_a_scale_that_xnnpack_takes(tmp_path: Path) -> None:
    model, pixels = rewrites.rewrite(dead()).model, smooth_pixels(64, 16)
    ranges = fake_quant.calibrate(model, pixels, InputSpec(16, 16))
    fake_quant.snap(model, ranges)
    integer_file(model, ranges, InputSpec(16, 16), tmp_path / "m.tflite")
    exact = fake_quant.as_deployed(fake_quant.fake_quantise(model, ranges, exact=True))
    np.testing.assert_array_equal(answers(tmp_path / "m.tflite", pixels), np.round(exact(normalised(pixels)) * 256))


def test_a_layer_that_calibration_leaves_without_a_scale_is_named(tmp_path: Path) -> None:
    model, small = rewrites.rewrite(dead()).model, rewritten("plain")
    layers = [layer.name for layer in model.layers]

    def made(network: tf_keras.Model) -> graph.Graph:
        how, spec = catalogue.converter("int8"), InputSpec(16, 16)
        return graph.parse_graph(flatbuffer(network, how, spec, smooth_pixels(16, 16), io="int8"))

    with pytest.raises(InputError, match="is 0 for every calibration picture") as caught:
        check_scales(made(model), layers, tmp_path)
    assert any(f"layer {name} is" in str(caught.value) for name in layers)
    check_scales(made(small), layers, tmp_path)


def test_what_cannot_be_rounded_is_named_with_what_helps() -> None:
    image = tf_keras.layers.Input((8, 8, 3))
    x = tf_keras.layers.Activation("gelu", name="curve")(tf_keras.layers.Conv2D(4, 1)(image))
    model = tf_keras.Model(image, tf_keras.layers.Activation("softmax")(tf_keras.layers.Flatten()(x)))
    with pytest.raises(InputError, match="layer curve, Activation with gelu") as caught:
        fake_quant.check(model)
    assert "swish" in caught.value.remedy


@pytest.mark.parametrize("name", OPTIONS)
def test_calibration_alone_gives_an_integer_file_too(name: str, tmp_path: Path) -> None:
    architecture = dataclasses.replace(TINY, **OPTIONS[name])
    model = rewritten(name)
    data = flatbuffer(model, catalogue.converter("int8"), InputSpec(16, 16), smooth_pixels(16, 16), io="int8")
    (tmp_path / "m.tflite").write_bytes(data)
    made = graph.read_graph(tmp_path / "m.tflite")
    left = {found.operator.name for found in graph.xnnpack_unsupported(made) if found.operator}
    if architecture.attention == "mixed":
        assert (made.float_operators, made.inner_quantize, left) == ([], [], {"SOFTMAX"})
    else:  # of the normalisation one operator, and nothing else
        assert (made.float_operators, made.inner_quantize) == ([], [])
        assert left - {"SOFTMAX"} <= {"L2_NORMALIZATION", "ADD", "RSQRT"}
    if architecture.attention == "spatial":
        assert graph.gpu_warnings(made) == []


def test_snapping_is_done_once_and_moves_no_answer() -> None:
    spec = InputSpec(16, 16)
    model = rewritten("plain")
    pixels = smooth_pixels(32, 16)
    ranges = fake_quant.calibrate(model, pixels, spec)
    fake_quant.snap(model, ranges)
    once = model.get_weights()
    fake_quant.snap(model, ranges)
    for before, after in zip(once, model.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-7)
    layer = model.get_layer("stage1_unit_conv2")
    steps = layer.get_weights()[0] / fake_quant.weight_scales(layer)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert np.abs(steps).max() == pytest.approx(127, abs=1e-3)


def test_every_trainable_number_of_the_network_is_trained_and_comes_back() -> None:
    model = rewritten("plain")
    ranges = fake_quant.calibrate(model, smooth_pixels(32, 16), InputSpec(16, 16))
    rounded = fake_quant.fake_quantise(model, ranges)
    assert sum(int(np.prod(v.shape)) for v in rounded.trainable_variables) == sum(
        int(np.prod(v.shape)) for v in model.trainable_variables
    )
    for variable in rounded.trainable_variables:
        variable.assign_add(tf_keras.backend.ones_like(variable))
    before = [w.copy() for w in model.get_weights()]
    fake_quant.take_weights(model, rounded)
    moved = [np.abs(a - b).max() for a, b in zip(model.get_weights(), before, strict=True)]
    still = [layer for layer in model.layers if layer.weights and not layer.trainable]
    assert sum(m == 0 for m in moved) == sum(len(layer.weights) for layer in still)
    assert max(moved) == pytest.approx(1, abs=1e-5)


def test_ranges_of_another_network_or_damaged_are_refused(tmp_path: Path) -> None:
    model = rewritten("plain")
    ranges = dict(fake_quant.calibrate(model, smooth_pixels(8, 16), InputSpec(16, 16)))
    path = tmp_path / "ranges.json"
    fake_quant.save_ranges(ranges, path)
    assert fake_quant.load_ranges(path) == ranges
    ranges.pop("tail_unit1_add")
    with pytest.raises(InputError, match="tail_unit1_add has no range"):
        fake_quant.fake_quantise(model, ranges)
    for text in ('{"a": [1, 2]}', '{"a": 3}', "[]", "{", '{"a": [0, NaN]}', json.dumps({"a": [0, 0]}),
                 '{"a": [-1e300, 1e300]}', '{"a": [0, 1e-300]}', f'{{"a": [0, {"9" * 400}]}}',
                 "[" * 100_000):  # fmt: skip
        path.write_text(text)
        with pytest.raises(InputError):
            fake_quant.load_ranges(path)
