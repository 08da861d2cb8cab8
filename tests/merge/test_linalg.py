import threading

import pytest
import torch

from weightvc.merge import linalg


@pytest.mark.parametrize(
    ("values", "alpha", "wanted"),
    [
        ([4.0, 3.0, 1.0], 0.5, (1, 3)),
        ([4.0, 3.0, 1.0], 0.49, (0, 3)),
        ([4.0, 3.0, 1.0], 0.875, (2, 3)),
        ([4.0, 3.0, 1.0], 0.0, (0, 3)),
        ([4.0, 3.0, 1.0], 1.0, (3, 3)),
        ([1.0], 0.5, (0, 1)),
        ([1.0, 1e-6, 0.0], 0.99, (0, 1)),
        ([1.0, 1.1e-6], 0.99, (0, 2)),
        ([1.0, 1.0, 1.0, 1.0], 0.5, (0, 4)),
        ([2.0, 1.0, 1.0 - 1e-9, 0.5], 0.7, (1, 4)),
        ([2.0, 1.0, 1.0 - 1e-7, 0.5], 0.7, (2, 4)),
    ],
)
def test_split_rank(values, alpha, wanted):
    assert linalg.split_rank(values, alpha) == wanted


def test_rounding_does_not_decide_the_split():
    assert 0.5 + 0.4 > 0.75 * (0.5 + 0.4 + 0.3)  # by one rounding, where in real numbers they are equal
    assert linalg.split_rank([0.5, 0.4, 0.3], 0.75) == (2, 3)


def test_spectrum_is_that_of_the_singular_value_decomposition(matrix):
    C = matrix(30, 12, seed=1, smallest=1e-3)
    s, V = linalg.spectrum(C)
    assert torch.allclose(torch.tensor(s, dtype=torch.float64), torch.linalg.svdvals(C), rtol=1e-9)
    assert torch.allclose((C @ V).norm(dim=0).flip(0), torch.linalg.svdvals(C), rtol=1e-9)


def test_vanishes():
    assert linalg.vanishes(torch.zeros(3, 3, dtype=torch.float64))
    assert linalg.vanishes(torch.full((3, 3), 1e-160, dtype=torch.float64))
    assert not linalg.vanishes(torch.full((3, 3), 1e-100, dtype=torch.float64))


def test_single_thread_restores_the_number_of_threads():
    torch.set_num_threads(2)
    seen = []

    def work():
        with linalg.single_thread():
            seen.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert seen == [1]
    assert torch.get_num_threads() == 2


def test_pin_thread_pins_a_worker():
    seen = []

    def work():
        linalg.pin_thread()
        seen.append(torch.get_num_threads())

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert seen == [1]
