import cv2
import numpy as np
import pytest

from edge_ran.card import InputSpec
from edge_ran.errors import InputError
from edge_ran.graph import TensorSpec
from edge_ran.preprocess import Preprocessor, dequantise, fit_pixels, normalise, quantise

RNG = np.random.default_rng(0)
FRAME = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)


def tensor(dtype: str, scale: float = 0.0, zero_point: int = 0, shape=(1, 24, 32, 3)) -> TensorSpec:
    return TensorSpec("image", shape, dtype, scale, zero_point)


def test_fit_orders_colours():
    blue = np.zeros((4, 4, 3), np.uint8)
    blue[:, :, 0] = 200
    assert fit_pixels(blue, InputSpec(4, 4))[0, 0].tolist() == [0, 0, 200]
    assert fit_pixels(blue, InputSpec(4, 4, color="bgr"))[0, 0].tolist() == [200, 0, 0]


def test_non_square_input_is_height_by_width():
    frame = np.zeros((40, 80, 3), np.uint8)
    frame[:, 40:] = 255  # the right half
    fitted = fit_pixels(frame, InputSpec(height=10, width=30))
    assert fitted.shape == (10, 30, 3)
    assert fitted[:, :15].max() == 0
    assert fitted[:, 15:].min() == 255


def test_crop_keeps_the_aspect_ratio():
    frame = np.zeros((40, 80, 3), np.uint8)
    frame[:, 20:60] = 255  # the centred square
    assert fit_pixels(frame, InputSpec(10, 10, fit="crop")).min() == 255
    assert fit_pixels(frame, InputSpec(10, 10, fit="stretch")).min() == 0


@pytest.mark.parametrize("size", [(480, 640), (432, 768), (1080, 1920), (1944, 2592), (433, 767)])
@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_large_pictures_are_averaged_over_the_pixels_that_they_cover(size: tuple[int, int], fit: str) -> None:
    """Halving first is a short cut, not another picture; nothing of a finer pattern is left."""
    blots = np.random.default_rng(1).integers(30, 220, (12, 20, 3), dtype=np.uint8)
    scene = np.asarray(cv2.resize(blots, size[::-1], interpolation=cv2.INTER_CUBIC))
    spec = InputSpec(56, 56, color="bgr", fit=fit)
    left = (size[1] - size[0]) // 2 if fit == "crop" else 0
    seen = scene[:, left : left + size[0]] if left else scene
    exact = cv2.resize(seen, (56, 56), interpolation=cv2.INTER_AREA)
    difference = np.abs(fit_pixels(scene, spec).astype(int) - exact)
    assert difference.mean() < 1
    assert difference.max() < 10
    stripes = np.zeros((480, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(fit_pixels(stripes, spec)) <= 1


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("size", [(48, 64), (24, 32), (11, 13)])
def test_pixels_are_written_where_they_shall_be(size: tuple[int, int], color: str) -> None:
    frame, spec = FRAME[: size[0], : size[1]], InputSpec(24, 32, color=color)
    inputs = np.zeros((2, 24, 32, 3), np.uint8)
    assert np.shares_memory(fit_pixels(frame, spec, inputs[1]), inputs)
    assert inputs[0].max() == 0
    assert np.array_equal(inputs[1], fit_pixels(frame, spec))
    assert not np.shares_memory(fit_pixels(frame, spec), FRAME)  # the camera's next picture may overwrite this one


@pytest.mark.parametrize("shape", [(10, 10), (10, 10, 4), (1, 10, 10, 3)])
def test_fit_refuses_what_is_no_frame(shape):
    with pytest.raises(InputError, match="frame"):
        fit_pixels(np.zeros(shape, np.uint8), InputSpec(4, 4))


def test_every_pixel_is_less_128_in_int8():
    spec, quantised = InputSpec(16, 16), tensor("int8", 1 / 128, 0, (1, 16, 16, 3))
    frame = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    x = Preprocessor(spec, quantised)(frame)
    assert x.dtype == np.int8
    assert np.array_equal(x[0].astype(int), frame.astype(int) - 128)


def test_quantised_input_is_clipped_and_never_wraps():
    # A range of half the pixels: 200 must saturate at 127, not come out as a negative number.
    spec, quantised = InputSpec(24, 32), tensor("int8", 0.5 / 128, 0)
    x = Preprocessor(spec, quantised)(np.full((24, 32, 3), 200, np.uint8))
    assert (x == 127).all()
    assert (Preprocessor(spec, quantised)(np.zeros((24, 32, 3), np.uint8)) == -128).all()


@pytest.mark.parametrize(
    "wanted",
    [tensor("float32"), tensor("uint8", 0.017, 121), tensor("int8", 0.017, -7), tensor("int16", 1e-4, 0)],
    ids=lambda wanted: wanted.dtype,
)
def test_the_table_is_normalise_then_quantise(wanted):
    spec = InputSpec(24, 32, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    x = Preprocessor(spec, wanted)(FRAME)
    assert np.array_equal(x[0], quantise(normalise(fit_pixels(FRAME, spec), spec), wanted))
    assert x.dtype == wanted.dtype
    step = wanted.scale or 1e-6
    clipped = dequantise(x[0], wanted)
    inside = np.abs(clipped) < np.abs(clipped).max()
    assert np.abs(clipped - normalise(fit_pixels(FRAME, spec), spec))[inside].max() <= step / 2 + 1e-6


def test_out_is_filled_in_place():
    preprocess = Preprocessor(InputSpec(24, 32), tensor("float32"))
    out = np.empty((1, 24, 32, 3), np.float32)
    assert preprocess(FRAME, out) is out
    assert np.array_equal(out, preprocess(FRAME))
    with pytest.raises(ValueError, match="out is"):
        preprocess(FRAME, out.astype(np.float64))


@pytest.mark.parametrize(
    "wrong",
    [tensor("float32", shape=(1, 32, 24, 3)), tensor("bool"), tensor("complex64")],
    ids=["size", "truth", "complex"],
)
def test_tensors_that_hold_no_pixels_are_refused(wrong):
    with pytest.raises(InputError):
        Preprocessor(InputSpec(24, 32), wrong)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "float16"])
def test_inputs_without_a_scale_take_the_numbers_as_they_are(dtype):
    raw = InputSpec(24, 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    x = Preprocessor(raw, tensor(dtype))(FRAME)
    assert x.dtype == dtype
    assert np.array_equal(x[0], fit_pixels(FRAME, raw))


def test_a_size_that_nobody_chose_is_refused():
    with pytest.raises(InputError, match="any size"):
        Preprocessor(InputSpec(0, 0), tensor("float32"))
