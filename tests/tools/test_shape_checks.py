"""What the tests' checks of types and shapes refuse in the package, and what they let pass."""

from collections.abc import Iterator
from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from soundreel.nn.embeddings import sinusoidal_embedding
from soundreel.nn.linear import linear
from soundreel.types import ClipSpec

checked = jaxtyping.jaxtyped(typechecker=beartype)


@checked
def product(a: Float[Tensor, "row n"], b: Float[Tensor, "n column"]) -> Float[Tensor, "row column"]:
    return a @ b


@checked
def turned(x: Float[Tensor, "row column"], times: int = 1) -> Float[Tensor, "column row"]:
    return x.T if times else x


@checked
def nested(x: Float[Tensor, "row column"]) -> "Float[Tensor, 'row row']":
    return product(x, turned(x))


@checked
@dataclass(frozen=True)
class Pair:
    first: Float[Tensor, " n"]
    second: Float[Tensor, " n"]


@checked
def counting(count: int) -> Iterator[int]:
    yield from range(count)


def test_each_call_has_axis_names_of_its_own():
    for rows in (2, 3):
        x = torch.ones(rows, 4)
        assert nested(x).shape == (rows, rows)
        assert turned(x).shape == (4, rows)


@pytest.mark.parametrize(
    "call",
    [
        lambda: product(torch.ones(2, 3), torch.ones(2, 3)),
        lambda: product(torch.ones(2, 3), b=torch.ones(4, 3)),
        lambda: product(torch.ones(2, 3).long(), torch.ones(3, 2)),
        lambda: product(torch.ones(2), torch.ones(3, 2)),
        lambda: turned(torch.ones(2, 3), times=0),
        lambda: turned(torch.ones(2, 3), times=1.0),
        lambda: Pair(torch.ones(2), torch.ones(3)),
        lambda: counting("1"),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(TypeCheckError):
        call()


def test_what_fits_passes():
    assert Pair(torch.ones(2), torch.zeros(2)).second.shape == (2,)
    assert list(counting(2)) == [0, 1]
    assert turned(torch.ones(3, 3), times=0).shape == (3, 3)


def test_the_package_is_checked():
    with pytest.raises(TypeCheckError):
        ClipSpec(num_frames="4", height=8, width=8)
    with pytest.raises(TypeCheckError):
        linear(torch.ones(2, 3), torch.ones(4), torch.ones(4))
    with pytest.raises(TypeCheckError):
        sinusoidal_embedding(torch.ones(2, 3), 4)
    assert sinusoidal_embedding(torch.ones(2), 4).shape == (2, 4)
