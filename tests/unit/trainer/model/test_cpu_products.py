"""bf16 products by fp32 GEMMs, registered in this process while a test lasts."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from surogate_bench_quantization import cpu_products
from surogate_bench_quantization.cpu_products import ensure_fast_bf16_products, use_fp32_gemms

BF16 = torch.bfloat16


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    """Take back what other tests in this process multiply by, until the test is over."""
    while cpu_products._registered:
        cpu_products._registered.pop()._destroy()
    yield
    ensure_fast_bf16_products()


@pytest.fixture
def registered() -> Iterator[None]:
    library = use_fp32_gemms()
    yield
    library._destroy()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(BF16)


def rounded(exact: Tensor) -> Tensor:
    """The nearest bf16 numbers: what one rounding of an exact product gives."""
    return exact.to(torch.float32).to(BF16)


LEFT, RIGHT, ADDED = random(33, 48), random(48, 20, seed=1), random(33, 20, seed=2)
LEFTS, RIGHTS, MASKS = random(3, 33, 48), random(3, 48, 20, seed=1), random(3, 33, 20, seed=2)
PRODUCTS: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
    "mm": (lambda: LEFT @ RIGHT, lambda: LEFT.double() @ RIGHT.double()),
    "transposed": (lambda: RIGHT.t() @ LEFT.t(), lambda: RIGHT.double().t() @ LEFT.double().t()),
    "addmm": (
        lambda: torch.addmm(ADDED, LEFT, RIGHT, beta=0.5, alpha=3.0),
        lambda: 0.5 * ADDED.double() + 3.0 * (LEFT.double() @ RIGHT.double()),
    ),
    "scaled only": (
        lambda: torch.addmm(torch.full((), float("nan"), dtype=BF16), LEFT, RIGHT, beta=0, alpha=0.3),
        lambda: 0.3 * (LEFT.double() @ RIGHT.double()),
    ),
    "bmm": (lambda: LEFTS @ RIGHTS, lambda: LEFTS.double() @ RIGHTS.double()),
    "baddbmm": (
        lambda: torch.baddbmm(MASKS, LEFTS, RIGHTS, alpha=0.25),
        lambda: MASKS.double() + 0.25 * (LEFTS.double() @ RIGHTS.double()),
    ),
    "linear of three dimensions with a bias": (
        lambda: torch.nn.functional.linear(LEFTS, RIGHT.t(), ADDED[0]),
        lambda: LEFTS.double() @ RIGHT.double() + ADDED[0].double(),
    ),
    "nothing to sum": (lambda: LEFT[:, :0] @ RIGHT[:0], lambda: torch.zeros(33, 20, dtype=torch.float64)),
}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_bf16_product_is_the_exact_one_rounded_once(name: str) -> None:
    product, exact = PRODUCTS[name]
    got, want = product(), rounded(exact())
    assert got.dtype is BF16
    assert got.shape == want.shape
    # fp32 sums may fall on the other side of a tie of bf16: one unit in the last place, and seldom.
    assert torch.allclose(got.float(), want.float(), rtol=2**-7, atol=1e-5)
    assert (got != want).float().mean() < 0.02


@pytest.mark.usefixtures("registered")
def test_gradients_are_products_too() -> None:
    left, right = LEFT.clone().requires_grad_(), RIGHT.clone().requires_grad_()
    (left @ right).backward(ADDED)
    assert left.grad is not None
    assert right.grad is not None
    for got, exact in (
        (left.grad, ADDED.double() @ RIGHT.double().t()),
        (right.grad, LEFT.double().t() @ ADDED.double()),
    ):
        assert torch.allclose(got.float(), rounded(exact).float(), rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_other_products_stay_as_they_are(dtype: torch.dtype) -> None:
    def products() -> list[Tensor]:
        left, right, added = (each.mul(8).to(dtype) for each in (LEFTS, RIGHTS, MASKS))
        return [left[0] @ right[0], torch.addmm(added[0], left[0], right[0]), left @ right, added.baddbmm(left, right)]

    before = products()
    library = use_fp32_gemms()
    try:
        after = products()
    finally:
        library._destroy()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("has_its_own", [True, False])
def test_a_cpu_with_bf16_instructions_keeps_its_own_products(
    has_its_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    registrations = []
    monkeypatch.setattr(cpu_products, "has_bf16_products", lambda: has_its_own)
    monkeypatch.setattr(cpu_products, "_registered", [])
    monkeypatch.setattr(cpu_products, "use_fp32_gemms", lambda: registrations.append(1))
    ensure_fast_bf16_products()
    ensure_fast_bf16_products()
    assert len(registrations) == (0 if has_its_own else 1)
