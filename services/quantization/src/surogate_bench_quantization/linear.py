"""The linear layer that stands in for a frozen, quantized one; PEFT adapts it like any ``nn.Linear``."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

from surogate_bench_quantization.storage import FrozenWeight


class Operands(Protocol):
    """What products with a frozen weight keep of it."""

    @property
    def operand_nbytes(self) -> int:
        """Bytes kept in addition to the storage to make the products faster."""
        ...


class Products(Operands, Protocol):
    """The two products with a frozen weight W of shape (out_features, in_features)."""

    def fprop(self, inputs: Tensor, *, record: bool) -> Tensor:
        """Forward product x @ W.T.

        Args:
            inputs: bf16 (..., in_features), contiguous.
            record: Record what later scales depend on.

        Returns:
            bf16 (m, out_features), m the product of the leading dimensions.
        """
        ...

    def dgrad(self, gradients: Tensor) -> Tensor:
        """Backward product g @ W: bf16 (m, out_features), contiguous, to bf16 (m, in_features)."""
        ...


class _FrozenProduct(torch.autograd.Function):
    """x @ W.T with its own backward product. W is frozen, so it has no gradient and nothing is saved."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, products: Products, record: bool) -> Tensor:  # noqa: ANN401 - torch's own type has no attributes
        ctx.products = products
        ctx.input_shape = inputs.shape
        outputs = products.fprop(inputs, record=record)
        return outputs.view(*inputs.shape[:-1], outputs.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - as above
        rows = gradients.reshape(-1, gradients.shape[-1]).contiguous()
        return ctx.products.dgrad(rows).view(ctx.input_shape), None, None


class FrozenLinear(nn.Linear):
    """A frozen linear layer whose weight lives in ``storage``.

    ``weight`` is empty: no bf16 copy of a quantized weight survives. It is there because PEFT takes the device and the
    dtype of fresh adapters from it, and bf16 for every recipe makes their initialization the same under all of them.

    Args:
        linear: The layer to replace; its bias, if any, is shared.
        storage: Its weight.
        products: What multiplies with that weight; may hold ``storage`` itself.
    """

    products: Operands

    def __init__(self, linear: nn.Linear, storage: FrozenWeight, products: Operands) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        empty = torch.empty(linear.out_features, 0, dtype=torch.bfloat16, device=linear.weight.device)
        self.weight = nn.Parameter(empty, requires_grad=False)
        self.bias = linear.bias
        self.storage = storage
        self.products = products

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply.

        Args:
            inputs: (..., in_features); cast to bf16 if it is not.

        Returns:
            bf16 (..., out_features).
        """
        outputs = self.multiply(inputs.to(torch.bfloat16).contiguous())
        return outputs if self.bias is None else outputs + self.bias

    def multiply(self, inputs: Tensor) -> Tensor:
        """Multiply contiguous bf16 (..., in_features), differentiably: bf16 (..., out_features)."""
        raise NotImplementedError


class QuantizedLinear(FrozenLinear):
    """A frozen linear layer with both products from ``products``; in eval mode nothing is recorded by them.

    Args:
        linear: The layer to replace; its bias, if any, is shared.
        storage: Its weight.
        products: Products with that weight; may hold ``storage`` itself.
    """

    products: Products

    def __init__(self, linear: nn.Linear, storage: FrozenWeight, products: Products) -> None:
        super().__init__(linear, storage, products)

    @override
    def multiply(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = _FrozenProduct.apply(inputs, self.products, self.training)  # type: ignore[no-untyped-call]
        return outputs
