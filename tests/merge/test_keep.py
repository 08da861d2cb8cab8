"""What a rule `base` asks for: a merge in which no task takes part."""

import torch

from weightvc.merge.keep import Keep
from weightvc.objects.tensors import TensorSpec


def test_no_task_takes_part():
    keep, vector = Keep(), torch.ones(2, 2, dtype=torch.float64)

    assert keep.coefficients([1.0, -0.5]) == (0.0, 0.0)
    assert not keep.projects(TensorSpec("w", "F32", (2, 2)))
    assert keep.step(None, vector, project=False) == (vector, None)
    assert keep.scale((), 0.0) == 1.0
