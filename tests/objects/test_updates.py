"""Low-rank updates: shapes of factors and of what they update."""

import pytest

from weightvc.objects.tensors import TensorSpec
from weightvc.objects.updates import Update, product


def spec(*shape, dtype="F32"):
    return TensorSpec("x", dtype, shape)


@pytest.mark.parametrize(
    ("a", "b", "shape"),
    [
        ((4, 8), (6, 4), (6, 8)),
        ((4, 8, 3, 3), (6, 4, 1, 1), (6, 8, 3, 3)),
        ((4, 8, 3), (6, 4), (6, 8, 3)),
        ((4, 8), (6, 3), None),
        ((4, 8, 3, 3), (6, 4, 3, 1), None),
        ((4,), (6, 4), None),
        ((4, 8), (4,), None),
        ((0, 8), (6, 0), None),
        ((4, 8), (0, 4), None),
        ((4, 0), (6, 4), None),
    ],
)
def test_the_shape_of_a_product(a, b, shape):
    assert product(spec(*a), spec(*b)) == shape


def test_what_an_update_fits():
    plain, turned = (Update("w", "a", "b", 1.0, transposed) for transposed in (False, True))
    a, b = spec(4, 8), spec(6, 4)
    assert plain.fits(spec(6, 8), a, b)
    assert turned.fits(spec(8, 6), a, b)
    assert not plain.fits(spec(8, 6), a, b)
    assert not turned.fits(spec(6, 8), a, b)
    assert not plain.fits(spec(6, 8, dtype="I8"), a, b)
    assert not plain.fits(spec(6, 8), spec(3, 8), b)
    kernel = spec(4, 8, 3, 3), spec(8, 4, 1, 1)
    assert plain.fits(spec(8, 8, 3, 3), *kernel)
    assert not turned.fits(spec(3, 3, 8, 8), *kernel)
