"""Every rewrite is exact on random BatchNorm statistics, alone and together, and leaves the form that it promises."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tf_keras
from tf_keras import layers

from edge_ran import catalogue
from edge_ran.architecture import Stage, named
from edge_ran.errors import InputError
from edge_ran.host import convert, networks, rewrites

# Small, but with all that matters: a mask of two scales with a skip, strides, projections, a final BatchNormalization.
SMALL = replace(
    named("cifar_attention56"),
    input_size=8,
    t=1,
    stem_channels=8,
    stages=(Stage(16, 8, 1, 1, 2),),
    tail=((8, 24, 2),),
)


def randomised(model: tf_keras.Model, seed: int = 0, *, positive: bool = False) -> tf_keras.Model:
    """Random weights, biases and BatchNorm statistics; gammas of both signs, some of them zero, or all positive."""
    signs = [0, 0, 1] if positive else [0.1, 0.1, 0.8]
    random = np.random.default_rng(seed)
    for layer in model.layers:
        weights = layer.get_weights()
        if isinstance(layer, layers.BatchNormalization):
            channels = weights[0].shape[0]
            gamma = random.uniform(0.5, 1.5, channels) * random.choice([-1, 0, 1], channels, p=signs)
            mean, beta = random.normal(0, 0.5, (2, channels))
            layer.set_weights([gamma, beta, mean, random.uniform(0.3, 3, channels)])
        elif len(weights) == 2:
            layer.set_weights([weights[0], random.normal(0, 0.3, weights[1].shape)])
    return model


@functools.cache
def _built(**options: object) -> tf_keras.Model:
    return networks.build(replace(SMALL, **options))  # type: ignore[arg-type]


def network(*, positive: bool = False, **options: object) -> tf_keras.Model:
    """A network with these options, built once a session; the next call for it gives it other weights."""
    return randomised(_built(**options), positive=positive)


OPTIONS: dict[str, dict[str, object]] = {
    "paper": {},
    "linear tail, biases, projections": {"mask_tail": "linear", "bias": True, "shortcut": "projection"},
    "nearest, channel": {"upsampling": "nearest", "attention": "channel"},
    "nearest, spatial, linear tail": {"upsampling": "nearest", "attention": "spatial", "mask_tail": "linear"},
    "naive, groups, no final norm": {"learning": "naive", "groups": 2, "final_norm": False},
    "no mask, stem pool": {"mask": False, "stem_pool": 2, "input_size": 16},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_all_passes_together_leave_every_network_equal(options: dict[str, object]) -> None:
    model = network(**options)
    rewritten = rewrites.rewrite(model)
    assert rewritten.difference < 1e-4
    assert not [c for c in _layers(rewritten.model, layers.Conv2D) if c.kernel_size == (1, 1) != c.strides]
    assert not _layers(rewritten.model, layers.BatchNormalization)
    assert not [layer for layer in rewritten.model.layers if type(layer) is layers.GroupNormalization]
    resized = _layers(rewritten.model, layers.UpSampling2D)
    assert all(layer.interpolation == "bilinear" for layer in resized)
    assert bool(resized) == (options.get("upsampling") != "nearest" and options.get("mask", True))
    assert rewrites.difference(model, rewritten.model, seed=1) < 1e-4  # measured anew, on another image
    assert rewrites.rewrite(rewritten.model).passes == ()  # nothing is left to do


def _sum_of_five(x: Any) -> Any:
    """(9, 8, 3) -> the same, of a number for each row, channel and position, one of them twice, and a taken name."""
    channels, rows = layers.GlobalAveragePooling2D()(x), layers.AveragePooling2D((1, 8))(layers.Conv2D(1, 1)(x))
    taken = layers.Conv2D(3, 1, name="sum_part")(x)
    return layers.Add(name="sum")([channels, rows, taken, x, x])


FOREIGN = {  # what only networks of other scripts have: a picture (9, 8, 3) -> their layers
    "activation as a layer of its own": lambda x: layers.Conv2D(4, 2, activation="relu")(
        layers.Conv2D(4, 2, activation="relu")(layers.Conv2D(4, 2, activation="swish")(x))
    ),
    "padding in the convolution": lambda x: layers.Conv2D(4, 3, 2)(layers.ZeroPadding2D(((1, 1), (0, 1)))(x)),
    "fold normalisation into dense layer": lambda x: layers.Dense(4)(layers.BatchNormalization()(layers.Flatten()(x))),
    "padding apart from max-pooling": lambda x: layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x)),
    "sums and products of two": lambda x: layers.Multiply()([_sum_of_five(x), x, layers.Conv2D(3, 1)(x)]),
    "normalisation between two ReLUs": lambda x: layers.Conv2D(3, 3)(
        layers.ReLU()(layers.BatchNormalization()(layers.MaxPooling2D(3, 2)(layers.ReLU()(layers.Conv2D(4, 2)(x)))))
    ),
}
POSITIVE = rewrites.MOVING


def foreign(name: str) -> tf_keras.Model:
    image = layers.Input((9, 8, 3))
    x = FOREIGN[name](image)
    model = tf_keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    return randomised(model, positive=name in POSITIVE)


@pytest.mark.parametrize(("name", "change"), rewrites.PASSES, ids=[name for name, _ in rewrites.PASSES])
def test_each_pass_alone_is_exact_and_finds_its_places(name: str, change: Callable[[rewrites.LayerGraph], int]) -> None:
    upsampling, attention = "nearest" if "nearest" in name else "bilinear", "spatial" if "spatial" in name else "mixed"
    options: dict[str, object] = {"mask_tail": "linear", "bias": True, "upsampling": upsampling}
    model = network(attention=attention, positive=name in POSITIVE, **options)
    if name in FOREIGN:
        model = foreign(name)
    graph = rewrites.LayerGraph.of(model)
    assert change(graph) > 0
    assert rewrites.difference(model, graph.model(model.name)) < 1e-4


def test_sums_of_two_are_added_in_the_same_order() -> None:
    model = foreign("sums and products of two")
    graph = rewrites.LayerGraph.of(model)
    assert dict(rewrites.PASSES)["sums and products of two"](graph) == 2
    chained = graph.model(model.name)
    assert {len(m.input) for m in chained.layers if isinstance(m, (layers.Add, layers.Multiply))} == {2}
    assert [m.name for m in _layers(chained, layers.Add)] == ["sum_part_2", "sum_part_3", "sum_part_4", "sum"]
    assert all(graph.nodes[m.name].shape == tuple(m.output.shape[1:]) for m in _layers(chained, layers.Add))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 9, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(chained(images), model(images))  # bit by bit


def test_the_difference_sees_a_wrong_rewrite() -> None:
    model = network()
    graph = rewrites.LayerGraph.of(model)
    graph.bypass(graph.nodes["stage1_unit_conv1_bn"])
    assert rewrites.difference(model, graph.model("wrong")) > 1e-2


def test_places_are_counted_and_names_and_the_given_model_kept() -> None:
    model = network(mask_tail="linear")
    weights = [w.copy() for w in model.get_weights()]
    rewritten = rewrites.rewrite(model)
    places = {p.name: p.places for p in rewritten.passes}
    norms = len(_layers(model, layers.BatchNormalization))
    assert places == {
        "merge pointwise convolutions": 1,
        "commute upsampling": 1,
        "stride before pointwise convolution": 1,
        "fold normalisation into convolution": norms - 10 - 1,
        "normalisation as depthwise convolution": 10 + 1,  # ten units, and the one after the last addition
    }
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))
    before = {layer.name for layer in _layers(model, layers.Conv2D)}
    after = {layer.name: layer for layer in rewritten.model.layers}
    assert before - after.keys() == {"stage1_module1_mask_tail1_conv"}
    assert [name for name in after if name.endswith("_stride")] == ["tail_unit1_shortcut_stride"]
    assert isinstance(after["stage1_module1_trunk_unit1_pre_bn"], layers.DepthwiseConv2D)


@pytest.mark.parametrize(
    ("upsampling", "mask_tail", "size"),
    # Behind BatchNormalization and ReLU only nearest neighbour commutes.
    [("bilinear", "linear", 4), ("bilinear", "paper", 8), ("nearest", "paper", 4)],
)
def test_the_masks_tail_works_on_a_quarter_of_the_positions(upsampling: str, mask_tail: str, size: int) -> None:
    model = network(upsampling=upsampling, mask_tail=mask_tail)
    assert model.get_layer("stage1_module1_mask_tail2_conv").output_shape[1] == 8
    rewritten = rewrites.rewrite(model)
    assert rewritten.difference < 1e-4
    assert rewritten.model.get_layer("stage1_module1_mask_tail2_conv").output_shape[1] == size


def test_a_merge_that_would_cost_more_is_left_alone() -> None:
    image = layers.Input((8, 8, 16))
    narrow = layers.Conv2D(2, 1, name="narrow")(image)
    wide = tf_keras.Model(image, layers.Conv2D(16, 1, name="wide")(narrow))
    assert rewrites.rewrite(wide).passes == ()
    assert {layer.name for layer in wide.layers} >= {"narrow", "wide"}


@pytest.mark.parametrize("size", [(2, 2), (3, 2)])
def test_copies_in_memory_are_the_nearest_neighbours(size: tuple[int, int]) -> None:
    image = layers.Input((5, 3, 4))
    model = tf_keras.Model(image, layers.UpSampling2D(size, interpolation="nearest", name="up")(image))
    rewritten = rewrites.rewrite(model)
    assert [type(layer) for layer in rewritten.model.layers[1:]] == [layers.Concatenate, layers.Reshape] * 2
    assert rewritten.model.output_shape == model.output_shape == (None, 5 * size[0], 3 * size[1], 4)
    assert rewritten.difference == 0


@pytest.mark.parametrize("options", [{"groups": 2}, {"groups": 4, "scale": True}, {"groups": 4, "axis": 1}])
def test_a_normalisation_of_another_kind_is_left_alone(options: dict[str, object]) -> None:
    image = layers.Input((4, 6, 4))
    norm = layers.GroupNormalization(**{"center": False, "scale": False, **options})
    assert rewrites.normalise_positions(rewrites.LayerGraph.of(tf_keras.Model(image, norm(image)))) == 0


def test_odd_sizes_choose_the_same_positions() -> None:
    image = layers.Input((7, 9, 3))
    model = tf_keras.Model(image, layers.Conv2D(5, 1, 2, padding="same")(image))
    rewritten = rewrites.rewrite(model)
    assert rewritten.passes[0].places == 1
    assert rewritten.model.output_shape == model.output_shape
    assert rewritten.difference == 0


def test_a_network_in_half_precision_comes_out_in_float32() -> None:
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = network(mask=False)
    finally:
        tf_keras.mixed_precision.set_global_policy(before)
    assert {layer.compute_dtype for layer in rewrites.rewrite(model).model.layers} == {"float32"}


@pytest.mark.parametrize(
    ("size", "ends", "kernel", "strides", "is_same"),
    [
        (8, ((0, 1), (0, 1)), 3, 2, True),  # MobileNet's padding
        (8, ((1, 1), (1, 1)), 3, 2, False),  # ResNet's: "same" puts its zeros elsewhere
        (9, ((1, 1), (1, 1)), 3, 2, True),
        (8, ((1, 1), (1, 1)), 3, 1, True),
        (8, ((2, 2), (2, 2)), 3, 1, False),
        (8, ((2, 2), (2, 2)), (5, 5), 1, True),
    ],
)
def test_padding_goes_into_the_convolution_where_that_is_the_same(
    size: int, ends: tuple[tuple[int, int], ...], kernel: int, strides: int, is_same: bool
) -> None:
    image = layers.Input((size, size, 3))
    model = tf_keras.Model(image, layers.Conv2D(4, kernel, strides)(layers.ZeroPadding2D(ends)(image)))
    rewritten = rewrites.rewrite(model)
    assert bool(_layers(rewritten.model, layers.ZeroPadding2D)) is not is_same
    assert rewritten.model.output_shape == model.output_shape
    assert rewritten.difference < 1e-6


def test_only_negative_numbers_are_kept_apart_from_padding() -> None:
    image = layers.Input((9, 9, 3))
    for relu, parted in ((True, 0), (False, 1)):
        x = layers.ReLU()(image) if relu else image
        model = tf_keras.Model(image, layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x)))
        rewritten = rewrites.rewrite(model)
        assert len(_layers(rewritten.model, layers.DepthwiseConv2D)) == parted
        assert rewritten.difference == 0


def test_normalisations_of_vectors_and_of_several_outputs_for_a_channel() -> None:
    image = layers.Input((6, 6, 4))
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=3)(image))
    x = layers.BatchNormalization()(layers.Flatten()(x))  # read twice: nowhere to go
    x = layers.Concatenate()([layers.ReLU()(x), layers.Dense(5)(x)])
    x = layers.BatchNormalization()(layers.Dense(4, activation="relu")(x))
    model = randomised(tf_keras.Model(image, layers.Dense(3, activation="softmax")(x)))
    rewritten = rewrites.rewrite(model)
    assert rewritten.difference < 1e-5
    assert not _layers(rewritten.model, layers.BatchNormalization)


def test_a_sequential_network_without_normalisation() -> None:
    model = tf_keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])
    assert rewrites.rewrite(model).difference == 0


def test_a_difference_is_seen_behind_the_softmax_of_a_dense_layer() -> None:
    image = layers.Input((4, 4, 3))
    model = tf_keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(image)))
    kernel, bias = model.layers[-1].get_weights()
    other = tf_keras.models.clone_model(model)
    other.layers[-1].set_weights([kernel, bias + 1])  # the same for each class: no probability changes
    assert rewrites.difference(model, other) > 0.1


def test_a_rewrite_that_moves_the_logits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: rewrites.LayerGraph) -> int:
        graph.bypass(graph.nodes["stage1_unit_conv1_bn"])
        return 1

    monkeypatch.setattr(rewrites, "PASSES", (("wrong", wrong),))
    with pytest.raises(InputError, match="moves its logits"):
        rewrites.rewrite(network())


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda x: layers.BatchNormalization(axis=1)(x), "normalises axis"),
        (lambda x: layers.BatchNormalization()(x, training=True), "training=True"),
        (lambda x: networks.tf.nn.leaky_relu(x, alpha=0.4), "operator with arguments"),
        (lambda x: x * 2.0, "operator with arguments"),
    ],
)
def test_what_would_be_drawn_differently_is_refused(draw: Callable[[Any], Any], words: str) -> None:
    image = layers.Input((6, 6, 3))
    with pytest.raises(InputError, match=words):
        rewrites.rewrite(tf_keras.Model(image, draw(image)))


def test_a_network_of_open_size_is_refused() -> None:
    image = layers.Input((None, None, 3))
    with pytest.raises(InputError, match="any size"):
        rewrites.rewrite(tf_keras.Model(image, layers.Conv2D(3, 1)(image)))


def test_what_is_not_one_flat_graph_is_refused() -> None:
    nested = tf_keras.Sequential([layers.Input((8, 8, 3)), tf_keras.Sequential([layers.Conv2D(2, 1)])])
    with pytest.raises(InputError, match="nested"):
        rewrites.rewrite(nested)
    image = layers.Input((8, 8, 3))
    two = tf_keras.Model(image, [layers.ReLU()(image), layers.Conv2D(2, 1)(image)])
    with pytest.raises(InputError, match="one output"):
        rewrites.rewrite(two)
    shared = layers.Conv2D(3, 1)
    with pytest.raises(InputError, match="twice"):
        rewrites.rewrite(tf_keras.Model(image, shared(shared(image))))


def _layers(model: tf_keras.Model, kind: type[layers.Layer]) -> list[layers.Layer]:
    return [layer for layer in model.layers if type(layer) is kind]


def large(channels: int = 512, size: int = 4, **options: Any) -> rewrites.Rewritten:
    """A 3x3 convolution of 512 channels on a few positions, a ReLU, and a classifier behind it."""
    image = tf_keras.Input((size, size, 512))
    x = layers.Conv2D(channels, 3, **{"padding": "same", "name": "wide", **options})(image)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return rewrites.rewrite(randomised(tf_keras.Model(image, layers.Dense(3)(x))))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_what_a_kernel_would_multiply_with_padding_is_left_out(size: int) -> None:
    whole = large(size=size)
    rewritten = rewrites.for_floats(whole)
    assert [(p.name, p.places) for p in rewritten.passes] == [("convolution without its padding", 1)] * (size > 2)
    assert 0 <= rewritten.difference < 1e-5
    assert rewrites.difference(whole.model, rewritten.model, seed=3) < 1e-5
    if size > 2:
        parts = _layers(rewritten.model, layers.Conv2D)
        assert sorted(tuple(part.output.shape[1:3]) for part in parts) == [(size, size - 1)] * 2 + [(size, size)]
        kernels = {part.name[-1]: part.get_weights()[0] for part in parts}
        kernel = whole.model.get_layer("wide").get_weights()[0]
        assert (np.concatenate([kernels[column] for column in "012"], 1) == kernel).all()
        assert isinstance(rewritten.model.get_layer("wide"), layers.Add)


@pytest.mark.parametrize(
    "options",
    [{"channels": 32}, {"groups": 2}, {"size": 8}, {"strides": 2}, {"padding": "valid"}, {"dilation_rate": 2}],
    ids=lambda options: next(iter(options)),
)
def test_other_convolutions_stay_whole(options: dict[str, Any]) -> None:
    whole = large(**options)
    assert rewrites.for_floats(whole) is whole


def test_an_int8_file_keeps_its_convolutions_whole() -> None:
    model = large().model
    for name, parts in (("int8", 0), ("dynamic", 0), ("int16x8", 0), ("fp32", 1), ("fp16", 1)):
        rewritten = convert.rewrite_for(model, catalogue.converter(name))
        assert sum(layer.name == "wide_column1" for layer in rewritten.model.layers) == parts, name


CARRIED = {  # option -> units without an operator of their own, and what is left of the others
    "paper": (8, ["mask_down1", "mask_down2", "after"]),
    "linear tail, biases, projections": (7, ["unit_pre", "mask_down1", "mask_down2", "after"]),
    "nearest, channel": (8, ["mask_down1", "mask_down2", "after"]),
    "naive, groups, no final norm": (7, ["mask_down1", "mask_down2", "after"]),
    "no mask, stem pool": (5, []),
}


@pytest.mark.parametrize("options", CARRIED)
def test_sums_carry_the_shifts_of_their_units(options: str) -> None:
    model = network(positive=True, **OPTIONS[options])
    rewritten = rewrites.rewrite(model)
    assert rewrites.difference(model, rewritten.model, seed=2) < 1e-5
    carried, left = CARRIED[options]
    assert {p.name: p.places for p in rewritten.passes}["shift carried by additions"] == carried
    kept = [layer.name for layer in _layers(rewritten.model, layers.DepthwiseConv2D) if layer.use_bias]
    assert len(kept) == len(left)
    assert all(part in name for part, name in zip(sorted(left), sorted(kept), strict=True)), kept
    assert rewrites.rewrite(rewritten.model).passes == ()


def unit(x: Any, before: Any = None, after: Any = None, **norm: Any) -> Any:
    """A sum of a picture's convolutions, a normalisation, a ReLU, a convolution, and what else reads the sum."""
    total = layers.Add()([layers.Conv2D(4, 3, padding="same")(x), layers.Conv2D(4, 1)(x)])
    pre = layers.ReLU()(layers.BatchNormalization(**norm)(before(total) if before else total))
    branch = layers.Conv2D(4, 1)(layers.DepthwiseConv2D(3, padding="same")(pre))
    return layers.Add()([after(total) if after else total, branch])


FITTING = {  # a picture (8, 8, 3) -> a unit that loses its operator
    "identity": unit,
    "projection": lambda x: unit(x, after=lambda total: layers.Conv2D(4, 1)(total)),
    "projection without padding": lambda x: layers.Conv2D(4, 2)(layers.Add()([unit(x), layers.Conv2D(4, 1)(x)])),
    "pooled": lambda x: unit(x, lambda y: layers.MaxPooling2D(2, 1, "same")(y), lambda y: layers.MaxPooling2D(1)(y)),
    "resized": lambda x: unit(
        x, *[lambda y: layers.UpSampling2D(2, interpolation="bilinear")(layers.MaxPooling2D(2)(y))] * 2
    ),
}


@pytest.mark.parametrize("draw", FITTING.values(), ids=FITTING.keys())
def test_a_shift_is_taken_off_wherever_else_the_sum_is_read(draw: Callable[[Any], Any]) -> None:
    image = layers.Input((8, 8, 3))
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(draw(image)))
    model = randomised(tf_keras.Model(image, x), positive=True)
    rewritten = rewrites.rewrite(model)
    assert ("shift carried by additions", 1) in [(p.name, p.places) for p in rewritten.passes]
    assert rewritten.difference < 1e-5


REFUSED = {  # a picture (8, 8, 3) -> a unit that keeps its depthwise convolution
    "multiplied": lambda x: unit(x, after=lambda y: layers.Multiply()([y, layers.Activation("sigmoid")(y)])),
    "padding": lambda x: unit(x, after=lambda y: layers.Conv2D(4, 3, padding="same")(y)),
    "rectified": lambda x: unit(x, after=lambda y: layers.ReLU()(y)),
    "added to itself": lambda x: unit(x, before=lambda y: layers.Add()([y, y])),
    "far shift": lambda x: unit(x, beta_initializer="ones"),
    "negative": lambda x: unit(x, gamma_initializer=tf_keras.initializers.Constant(-1)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_unit_that_cannot_be_shifted_stays_as_it_is(name: str) -> None:
    image = layers.Input((8, 8, 3))
    model = tf_keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(REFUSED[name](image))))
    for layer in _layers(model, layers.BatchNormalization):
        gamma, beta, _, variance = layer.get_weights()
        far = 100.0 if name == "far shift" else 0.5
        layer.set_weights([gamma, far * np.ones_like(beta), np.full_like(beta, 0.3), variance])
    rewritten = rewrites.rewrite(model)
    assert [p.name for p in rewritten.passes] == ["normalisation as depthwise convolution"]
    assert rewritten.difference < 1e-6


@pytest.mark.parametrize(("beta", "kernel", "merged"), [(-1.0, 3, 1), (1.0, 1, 1), (1.0, 3, 0)])
def test_positive_shifts_between_relus_need_readers_without_padding(beta: float, kernel: int, merged: int) -> None:
    image = layers.Input((8, 8, 3))
    x = layers.MaxPooling2D(3, 2, "same")(layers.ReLU()(layers.Conv2D(4, 3)(image)))
    x = layers.ReLU()(layers.BatchNormalization(beta_initializer=tf_keras.initializers.Constant(beta))(x))
    x = layers.Add()([layers.Conv2D(4, kernel, padding="same")(x), layers.Conv2D(4, kernel, padding="same")(x)])
    model = tf_keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    rewritten = rewrites.rewrite(model)
    assert sum(p.name == "normalisation between two ReLUs" for p in rewritten.passes) == merged
    assert len(_layers(rewritten.model, layers.ReLU)) == 2 - merged
    assert rewritten.difference < 2e-5
