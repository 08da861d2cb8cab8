"""NumPy's BLAS keeps to the calling thread, and gets its threads back."""

from threadpoolctl import ThreadpoolController

from weightvc.util import blas


def threads():
    return [library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()]


def test_one_thread_and_as_before_at_the_end():
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        assert set(threads()) == {2}
        with blas.one_thread():
            assert set(threads()) == {1}
        assert set(threads()) == {2}
