"""TensorFlow's "same" padding, which the ported networks of the metrics were trained with."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Pad the trailing axes with zeros, after which a strided window gives ceil(size / stride).

    The total depends on the size; where it is odd, the extra element goes to the end.
    """
    padding: list[int] = []
    for size, width, step in zip(
        reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True
    ):
        total = max(width - (step if size % step == 0 else size % step), 0)
        padding += [total // 2, total - total // 2]
    return functional.pad(x, padding)
