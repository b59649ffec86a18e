"""Gradients of a regressor's output, molecule by molecule, without one backward pass for each.

With squared error everything that influence functions ask of a molecule is its residual and the
gradient of its prediction: grad L = 2 (f - y) grad f. Per-molecule gradients come from
`torch.func` (vmap over grad); a product with one direction from a single forward-mode pass.
Dropout is off. Everything is computed in the parameters' own precision, float32; where only the
head counts, molecules are embedded once, as they are for prediction, and the head alone is
differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lipo_cli.errors import ValuationError
from lipo_cli.model.batches import batches_in_order, collate
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress, SilentProgress

Call = Callable[..., Tensor]
Part = Literal["all", "head", "output"]
"""Which parameters count: all that were trained, the regression head, its last linear map."""
Parameters = dict[str, Tensor]
_AT_ONCE = 32
_DIFFERENTIATED_AT_ONCE = 24
"""Their gradients together are less for the caches: 8 % faster than 32 on a CPU."""
_EMBEDDED_AT_ONCE = 512
_JACOBIAN_NUMBERS = 2**27
"""Of a batch's gradients: half a GiB."""
_REMEMBERED = 20_000
"""Embeddings kept: those of a train set, not those of a large pool that is read once."""
_SILENT = SilentProgress()


class OutputGradients:
    """Gradients of a fitted regressor's predictions by its trained parameters.

    Directions and gradients are flat vectors [P], in the order of `names`; predictions are in raw
    label units.

    Args:
        regressor: A fitted regressor.
        part: Which of its trained parameters.
        embedded: Embeddings [D] of molecules that are known already, read where only the head
            counts.

    Attributes:
        regressor: The regressor.
        module: What is differentiated: its network, or its head.
        on_embeddings: Whether that reads embeddings: it is the head.
        names: The parameters, in their order in a flat vector.
        sizes: Numbers of each.
        n_parameters: P.
        dtype: Of parameters, gradients and predictions: float32, unless the model is cast.
    """

    def __init__(
        self,
        regressor: Regressor,
        part: Part = "all",
        embedded: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> None:
        self.regressor = regressor
        self.on_embeddings = part != "all"
        self.module: nn.Module = regressor.head() if self.on_embeddings else regressor.model
        self._point: Parameters = {
            name: parameter.detach()
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad and (part != "output" or name.startswith("out_proj."))
        }
        if not self._point:
            raise ValuationError(f"nothing of this model's '{part}' is trained")
        self.names = tuple(self._point)
        self.dtype = next(iter(self._point.values())).dtype
        self.sizes = {name: tensor.numel() for name, tensor in self._point.items()}
        self.n_parameters = sum(self.sizes.values())
        self._known = dict(embedded or {}) if self.on_embeddings else {}
        self._at_once = max(1, min(_EMBEDDED_AT_ONCE, _JACOBIAN_NUMBERS // self.n_parameters))

    def predictions(self, smiles: Sequence[str], progress: Progress = _SILENT) -> Tensor:
        """Returns [n] predictions in float32, as the gradients see them."""
        found = torch.empty(len(smiles), dtype=self.dtype)
        with torch.inference_mode():
            for positions, output in self._batches(smiles, progress):
                found[positions] = output(self._point).cpu()
        return found

    def jacobian(
        self,
        smiles: Sequence[str],
        progress: Progress = _SILENT,
        names: Sequence[str] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields positions [b], predictions [b] and gradients [b, P] of molecules of like length.

        One pass of vmap over reverse-mode differentiation per batch.

        Args:
            smiles: The molecules.
            progress: Told of them.
            names: Parameters to differentiate by, in this order; None: all of them.
        """
        moved = {name: self._point[name] for name in names or self.names}

        def one(point: Parameters, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            value = self._call({**self._point, **point}, *[each[None] for each in inputs])[0]
            return value, value.detach()

        for positions, inputs in self._inputs(smiles, _DIFFERENTIATED_AT_ONCE):
            axes = (None, *[0] * len(inputs))
            by_molecule = vmap(grad(one, has_aux=True), in_dims=axes)
            try:
                rows, values = by_molecule(moved, *inputs)
            except RuntimeError as error:
                if "vmap" not in str(error):
                    raise
                # Some encoders of transformers look at the mask's content: one by one, then.
                rows, values = _one_by_one(grad(one, has_aux=True), moved, inputs)
            flat = torch.cat([rows[name].flatten(1) for name in moved], dim=1)
            progress.advance(len(positions))
            yield positions, values.detach().cpu(), flat.detach().cpu()

    def along(
        self, smiles: Sequence[str], directions: Tensor, progress: Progress = _SILENT
    ) -> tuple[Tensor, Tensor]:
        """Returns predictions [n] and their derivatives [n, k] along directions [P, k].

        A batch is read (where only the head counts, embedded) once. Several directions take the
        gradients of a batch, which cost three forward passes; one, or a model whose gradients of a
        batch are large, a forward-mode pass for each, which costs two and holds no gradient.
        """
        if directions.shape[1] > 1 and _AT_ONCE * self.n_parameters <= _JACOBIAN_NUMBERS:
            return self._along_by_gradients(smiles, directions, progress)
        tangents = [self._unflat(direction) for direction in directions.T]
        values = torch.empty(len(smiles), dtype=self.dtype)
        slopes = torch.empty(len(smiles), len(tangents), dtype=self.dtype)
        for positions, output in self._batches(smiles, progress):
            for k, tangent in enumerate(tangents):
                value, slope = _pushed(output, self._point, tangent)
                values[positions], slopes[positions, k] = value.detach().cpu(), slope.detach().cpu()
        return values, slopes

    def _along_by_gradients(
        self, smiles: Sequence[str], directions: Tensor, progress: Progress
    ) -> tuple[Tensor, Tensor]:
        values = torch.empty(len(smiles), dtype=self.dtype)
        slopes = torch.empty(len(smiles), directions.shape[1], dtype=self.dtype)
        for positions, found, rows in self.jacobian(smiles, progress):
            values[positions], slopes[positions] = found, rows @ directions.to(self.dtype)
        return values, slopes

    def weighted(
        self, smiles: Sequence[str], weights: Tensor, progress: Progress = _SILENT
    ) -> Tensor:
        """Returns sum_i w_i grad f_i [P] for weights [n]: one backward pass per batch."""
        total = torch.zeros(self.n_parameters, dtype=self.dtype)
        for positions, output in self._batches(smiles, progress):
            total += self._flat(_pulled(output, self._point, weights[positions]))
        return total

    def gauss_newton(self, smiles: Sequence[str], direction: Tensor) -> Tensor:
        """Returns 2/n sum_i grad f_i (grad f_i . v) [P] for one batch of molecules and v [P]."""
        return self._mean_product(smiles, direction, self._gauss_newton)

    def hessian(self, smiles: Sequence[str], labels: Tensor, direction: Tensor) -> Tensor:
        """Returns the Hessian of 1/n sum_i (f_i - y_i)^2 times v [P]: forward over reverse."""

        def product(
            positions: Tensor, output: Callable[[Parameters], Tensor], tangent: Parameters
        ) -> Parameters:
            measured = labels[positions].to(self.regressor.device)

            def loss(point: Parameters) -> Tensor:
                return (output(point) - measured).square().sum()

            _, found = _pushed(grad(loss), self._point, tangent)
            return dict(found)

        return self._mean_product(smiles, direction, product)

    def _gauss_newton(
        self, _: Tensor, output: Callable[[Parameters], Tensor], tangent: Parameters
    ) -> Parameters:
        _, slopes = _pushed(output, self._point, tangent)
        return _pulled(output, self._point, 2 * slopes)

    def _mean_product(
        self,
        smiles: Sequence[str],
        direction: Tensor,
        product: Callable[[Tensor, Callable[[Parameters], Tensor], Parameters], Parameters],
    ) -> Tensor:
        tangent, total = self._unflat(direction), torch.zeros(self.n_parameters, dtype=self.dtype)
        for positions, output in self._batches(smiles):
            total += self._flat(product(positions, output, tangent))
        return total / len(smiles)

    def _batches(
        self, smiles: Sequence[str], progress: Progress = _SILENT
    ) -> Iterator[tuple[Tensor, Callable[[Parameters], Tensor]]]:
        """Yields positions and the batch's predictions [b] as a function of the parameters."""
        for positions, inputs in self._inputs(smiles):
            yield positions, partial(_at, self._call, inputs)
            progress.advance(len(positions))

    def _inputs(
        self, smiles: Sequence[str], at_once: int = _AT_ONCE
    ) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """Yields positions and what the differentiated module reads of a batch."""
        regressor = self.regressor
        regressor.model.eval()
        if self.on_embeddings:
            for start in range(0, len(smiles), self._at_once):
                rows = self._embedded(smiles[start : start + self._at_once])
                positions = torch.arange(start, start + len(rows))
                yield positions, (torch.from_numpy(rows).to(regressor.device, self.dtype),)
            return
        ids = regressor.encode(smiles).ids
        for places in batches_in_order([len(row) for row in ids], at_once):
            batch = collate([ids[i] for i in places], regressor.pad_id, regressor.device)
            yield torch.from_numpy(np.asarray(places)), (batch.input_ids, batch.attention_mask)

    def _embedded(self, smiles: Sequence[str]) -> NDArray[np.float64]:
        """Returns embeddings; a solver asks for the same molecules at every product."""
        new = [text for text in dict.fromkeys(smiles) if text not in self._known]
        if new and len(self._known) + len(new) > _REMEMBERED:
            return self.regressor.embed(smiles)
        if new:
            self._known |= zip(new, self.regressor.embed(new), strict=True)
        return np.stack([self._known[text] for text in smiles])

    def _call(self, point: Parameters, *inputs: Tensor) -> Tensor:
        """Returns predictions [b] in raw label units."""
        if self.on_embeddings:
            values: Tensor = functional_call(self.module, point, inputs)
        else:
            arguments = dict(zip(("input_ids", "attention_mask"), inputs, strict=True))
            # Fused attention of other encoders knows no forward mode.
            with sdpa_kernel(SDPBackend.MATH):
                values = functional_call(self.module, point, kwargs=arguments).logits
        return values[:, 0]

    def _flat(self, tensors: Parameters) -> Tensor:
        return torch.cat([tensors[name].detach().flatten() for name in self.names]).cpu()

    def _unflat(self, vector: Tensor) -> Parameters:
        sizes = [self._point[name].numel() for name in self.names]
        parts = vector.to(self.regressor.device, self.dtype).split(sizes)
        return {
            name: part.view_as(self._point[name])
            for name, part in zip(self.names, parts, strict=True)
        }


def _at(call: Call, inputs: tuple[Tensor, ...], point: Parameters) -> Tensor:
    """Returns a batch's predictions [b] at a point of parameter space."""
    return call(point, *inputs)


def _pushed(
    function: Callable[[Parameters], Any], point: Parameters, tangent: Parameters
) -> tuple[Any, Any]:
    """Returns a function's value and its derivative along a tangent."""
    found: Any = jvp(function, (point,), (tangent,))  # the stubs know of a third item, not asked
    return found[0], found[1]


def _pulled(
    output: Callable[[Parameters], Tensor], point: Parameters, weights: Tensor
) -> Parameters:
    """Returns the gradient of the weighted sum of a batch's predictions."""
    value, pull = vjp(output, point)  # type: ignore[misc]
    (found,) = pull(weights.to(value))
    return dict(found)


def _one_by_one(
    gradient: Callable[..., tuple[Parameters, Tensor]],
    point: Parameters,
    inputs: tuple[Tensor, ...],
) -> tuple[Parameters, Tensor]:
    """Returns gradients [b, ...] by name and predictions [b] of a batch."""
    found = [gradient(point, *row) for row in zip(*inputs, strict=True)]
    rows = {name: torch.stack([each[name] for each, _ in found]) for name in point}
    return rows, torch.stack([value for _, value in found])
