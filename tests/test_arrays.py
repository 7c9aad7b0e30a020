"""Arrays and tensors are read by one convention, or refused with both readings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lecturelib.arrays import from_array, from_tensor
from lecturelib.errors import ImageInputError
from lecturelib.images import load_image

UNITS = st.floats(0, 1, width=32)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 51, 255], np.uint8), ([0, 13107, 65535], np.uint16), ([0, 0.2, 1], np.float64), ([0, 0.2, 1], ">f4")],
)
def test_full_range_of_each_type_is_zero_to_one(values, dtype):
    image = load_image(np.array([values], dtype=dtype))
    torch.testing.assert_close(image, torch.tensor([0, 0.2, 1]).expand(1, 3, 1, 3))
    assert image.dtype == torch.float32


def test_a_mask_is_black_and_white():
    assert load_image(np.array([[False, True]])).tolist() == [[[[0, 1]]] * 3]
    assert load_image(torch.tensor([[False, True]])).tolist() == [[[[0, 1]]] * 3]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4), (2, 4, 5, 1), (2, 4, 5, 3), (1, 9, 3)])
def test_arrays_have_their_colors_last(shape):
    array = np.random.default_rng(0).random(shape)
    image = from_array(array)
    full = array if array.ndim == 4 else array[None, ..., None] if array.ndim == 2 else array[None]
    if full.shape[3] == 4:
        full = full[..., :3] * full[..., 3:] + (1 - full[..., 3:])
    np.testing.assert_allclose(image.permute(0, 2, 3, 1), np.broadcast_to(full, (*full.shape[:3], 3)), atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 4, 5), (2, 1, 4, 5), (2, 3, 4, 5), (3, 9, 1)])
def test_tensors_have_their_colors_first(shape):
    tensor = torch.rand(shape)
    full = tensor.reshape((1,) * (4 - tensor.ndim) + shape)
    torch.testing.assert_close(from_tensor(tensor), full.expand(-1, 3, -1, -1))


def test_transparent_values_become_white():
    array = np.array([[[1, 0, 0, 0], [1, 0, 0, 0.5], [1, 0, 0, 1]]])
    assert from_array(array)[0, :, 0].T.tolist() == [[1, 1, 1], [1, 0.5, 0.5], [1, 0, 0]]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((3, 8, 9)),
        np.zeros((3, 8, 3)),
        np.zeros((8, 9, 2)),
        np.zeros((2, 3, 8, 9)),
        np.zeros(8),
        np.zeros((1, 1, 8, 9, 3)),
        np.zeros((0, 9, 3)),
        np.array(0.5),
        torch.zeros(8, 9, 3),
        torch.zeros(3, 8, 3),
        torch.zeros(4, 8, 9),
        torch.zeros(2, 8, 9, 3),
        torch.zeros(3, 0, 9),
        torch.tensor(1.0),
    ],
    ids=lambda wrong: f"{type(wrong).__name__}-{tuple(wrong.shape)}",
)
def test_other_shapes_are_refused_with_both_readings(wrong):
    with pytest.raises(ImageInputError, match=r"(?s)read as.*Received: shape.*If it is"):
        load_image(wrong)


def test_advice_for_a_shape_with_two_readings_works():
    array, tensor = np.random.default_rng(0).random((3, 5, 3)), torch.rand(3, 5, 3)
    with pytest.raises(ImageInputError, match=r"could be.*\n.*array\[None\].*array.transpose\(1, 2, 0\)\[None\]"):
        load_image(array)
    assert load_image(array[None]).shape == (1, 3, 3, 5)
    assert load_image(array.transpose(1, 2, 0)[None]).shape == (1, 3, 5, 3)
    with pytest.raises(ImageInputError, match=r"could be.*\n.*tensor\[None\].*tensor.permute\(2, 0, 1\)\[None\]"):
        load_image(tensor)
    assert load_image(tensor[None]).shape == (1, 3, 5, 3)
    assert load_image(tensor.permute(2, 0, 1)[None]).shape == (1, 3, 3, 5)


@pytest.mark.parametrize("value", [255.0, 1.01, -0.01, float("nan"), float("inf"), -float("inf"), 1e300])
def test_values_outside_are_refused_and_never_rescaled(value):
    array = np.full((4, 5), 0.5)
    array[1, 2] = value
    for source in (array, torch.from_numpy(array)):
        with pytest.raises(ImageInputError, match=r"0 to 255, divide by 255; if they mean 0 to 1, use .clip"):
            load_image(source)


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint32, np.complex64, object, "<U1"])
def test_types_without_a_range_are_refused_with_both_readings(dtype):
    with pytest.raises(ImageInputError, match=r"(?s)255 or 1.*np.uint8.*np.float32"):
        load_image(np.zeros((4, 5)).astype(dtype))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.complex64])
def test_tensor_types_without_a_range_are_refused(dtype):
    with pytest.raises(ImageInputError, match="255 or 1"):
        load_image(torch.zeros(4, 5, dtype=dtype))


def test_rounding_beyond_the_ends_is_cut():
    image = load_image(np.array([[-1e-7, 1 + 1e-7]]))
    assert (image.min(), image.max()) == (0, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.uint16])
def test_tensors_of_every_type_become_float32(dtype):
    assert load_image(torch.ones(3, 4, 5).to(dtype)).dtype == torch.float32


def test_views_with_odd_strides_are_read_as_they_look():
    array = np.random.default_rng(0).random((6, 8, 3)).astype(np.float32)
    view = array[::-1, ::-2, ::-1]
    torch.testing.assert_close(load_image(view), load_image(view.copy()))
    locked = array.copy()
    locked.flags.writeable = False
    torch.testing.assert_close(load_image(locked), load_image(array))
    tensor = torch.rand(8, 6, 3).permute(2, 1, 0)
    torch.testing.assert_close(load_image(tensor)[0], tensor)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=5), elements=UNITS))
def test_every_array_is_an_image_or_an_image_input_error(array):
    before = array.copy()
    try:
        image = load_image(array)
    except ImageInputError:
        pass
    else:
        assert image.ndim == 4
        assert image.shape[1] == 3
        assert 0 <= image.min() <= image.max() <= 1
        image.fill_(0.5)
    np.testing.assert_array_equal(array, before)


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_arrays_and_tensors_of_a_grey_picture_agree(array):
    torch.testing.assert_close(load_image(array), load_image(torch.from_numpy(array.copy())), rtol=0, atol=0)


@pytest.mark.parametrize("grad", [False, True])
def test_a_tensor_is_copied_and_left_alone(grad):
    tensor = torch.rand(1, 3, 4, 5).requires_grad_(grad)
    before, image = tensor.detach().clone(), load_image(tensor)
    assert not image.requires_grad
    image.zero_()
    torch.testing.assert_close(tensor.detach(), before, rtol=0, atol=0)
    assert tensor.requires_grad is grad


def test_a_tensor_stays_on_its_device(device):
    assert load_image(torch.rand(3, 4, 5, device=device), size=3).device.type == device.type
