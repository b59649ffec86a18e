"""Regressors of several seeds, and a kernel readout where asked, that predict together.

Saved as a folder `manifest.json` with the members beside it (`members/0`, `members/1`, ...), each
the folder of a regressor of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lipo_cli import __version__
from lipo_cli.errors import ModelError
from lipo_cli.model import kernel
from lipo_cli.model.base import sha256_of
from lipo_cli.model.calibration import FEWEST, Calibration
from lipo_cli.model.folder import FORMAT, read_json, write_json
from lipo_cli.model.kernel import KernelReadout
from lipo_cli.model.regressor import Regressor

KIND = "ensemble"
_MEMBERS = "members"


Member = Regressor | KernelReadout
KERNEL_SHARE = 1 / 2
"""What a kernel readout weighs beside networks where validation is too small to say: what that of
Lipophilicity liked best beside one network and beside several (benchmarks/kernel_grid.py)."""
SHARES = (0.0, 1 / 4, KERNEL_SHARE, 3 / 4)
"""Among these validation chooses: few, so that it cannot choose much by chance."""
_ENOUGH = 20
"""Validation rows from which it is asked."""


def kernel_share(
    networks: NDArray[np.float64], readout: NDArray[np.float64], measured: NDArray[np.float64]
) -> float:
    """Returns the share of a kernel readout that validation likes best; of equals the smallest.

    Args:
        networks: [n] mean predictions of the networks on validation, raw label units.
        readout: [n] those of the readout.
        measured: [n] labels.
    """
    if len(measured) < _ENOUGH:
        return KERNEL_SHARE
    errors = [
        float(np.mean(((1 - share) * networks + share * readout - measured) ** 2))
        for share in SHARES
    ]
    return SHARES[int(np.argmin(errors))]


class Ensemble:
    """Predicts the weighted mean of its members.

    Networks weigh the same. Kernel readouts weigh a share together where there are networks.

    Attributes:
        members: The regressors and kernel readouts.
        shares: Their weights, which sum to 1.
        manifest: What the folder says about itself.
    """

    def __init__(
        self,
        members: Sequence[Member],
        about: dict[str, Any] | None = None,
        *,
        kernel_share: float = KERNEL_SHARE,
    ) -> None:
        if not members:
            raise ValueError("an ensemble needs a member")
        self.members = tuple(members)
        kernels = sum(isinstance(member, KernelReadout) for member in members)
        networks = len(members) - kernels
        share = kernel_share if kernels and networks else float(kernels > 0)
        self.shares = tuple(
            share / kernels if isinstance(member, KernelReadout) else (1 - share) / networks
            for member in members
        )
        self.manifest: dict[str, Any] = {
            "format": FORMAT,
            "lipo": __version__,
            "kind": KIND,
            "peft": members[0].peft,
            **(about or {}),
            "kernel_share": share,
        }

    def predict(
        self, smiles: Sequence[str], *, batch_size: int | None = None, views: int | None = None
    ) -> NDArray[np.float64]:
        """Predicts [n] values in raw label units: the mean over members and SMILES."""
        return self.average(self.predict_views(smiles, batch_size=batch_size, views=views))

    def average(self, views: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the mean [n] over members of each one's own average of views [n, members * k]."""
        return views @ self.weights(views.shape[1])

    def weights(self, count: int) -> NDArray[np.float64]:
        """Returns the weights [count] of members * k predictions in their average."""
        k = count // len(self.members)
        return np.concatenate(
            [s * m.weights(k) for s, m in zip(self.shares, self.members, strict=True)]
        )

    def predict_views(
        self, smiles: Sequence[str], *, batch_size: int | None = None, views: int | None = None
    ) -> NDArray[np.float64]:
        """Predicts [n, members * views] values, those of a member side by side."""
        return np.concatenate(
            [m.predict_views(smiles, batch_size=batch_size, views=views) for m in self.members],
            axis=1,
        )

    def save(self, folder: Path) -> None:
        """Writes the folder, its manifest last."""
        folder.mkdir(parents=True, exist_ok=True)
        sums = []
        for i, member in enumerate(self.members):
            member.save(folder / _MEMBERS / str(i))
            sums.append(sha256_of(folder / _MEMBERS / str(i) / "manifest.json"))
        needed = [m.manifest["base"] for m in self.members if not m.manifest["self_contained"]]
        about = {"self_contained": not needed, **({"base": needed[0]} if needed else {})}
        write_json(folder / "manifest.json", {**self.manifest, **about, "members": sums})

    @classmethod
    def load(cls, folder: Path | str, *, base: str | None = None, device: str = "auto") -> Self:
        """Loads a saved folder.

        Args:
            folder: What `save` wrote.
            base: As for `Regressor.load`.
            device: `auto`, `cpu` or `cuda`.

        Raises:
            ModelError: a member is missing, damaged, or not the one that was saved.
        """
        folder = Path(folder)
        manifest = read_json(folder / "manifest.json")
        sums = manifest.get("members")
        if not isinstance(sums, list) or not sums:
            raise ModelError("the manifest names no members", where=folder / "manifest.json")
        members: list[Member] = []
        for i, expected in enumerate(sums):
            inside = folder / _MEMBERS / str(i)
            file = inside / "manifest.json"
            if not file.is_file() or sha256_of(file) != expected:
                raise ModelError(
                    f"member {i} is missing or is not the one that was saved",
                    where=inside,
                    hint="the folder is damaged or mixed; export the model again",
                )
            members.append(_load_member(inside, base=base, device=device))
        about = {k: v for k, v in manifest.items() if k not in ("members", "peft", "kind")}
        return cls(members, about, kernel_share=manifest.get("kernel_share", KERNEL_SHARE))


def _load_member(folder: Path, *, base: str | None, device: str) -> Member:
    if read_json(folder / "manifest.json").get("kind") == kernel.KIND:
        return KernelReadout.load(folder, base=base, device=device)
    return Regressor.load(folder, base=base, device=device)


def load_predictor(
    folder: Path | str, *, base: str | None = None, device: str = "auto"
) -> Regressor | Ensemble:
    """Loads whatever a folder holds: a regressor, an ensemble, or a kernel readout as one of one.

    Raises:
        ModelError: it holds none of them, or is damaged.
    """
    file = Path(folder) / "manifest.json"
    kind = read_json(file).get("kind") if file.is_file() else None
    if kind == KIND:
        return Ensemble.load(folder, base=base, device=device)
    if kind == kernel.KIND:
        return Ensemble([KernelReadout.load(folder, base=base, device=device)])
    return Regressor.load(folder, base=base, device=device)


def spread(
    views: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Returns the standard deviation [n] of views [n, k] around their average; zeros where k is 1.

    Args:
        views: Predictions of members and SMILES.
        weights: [k] those of the average; None: equal ones. The variance is the unbiased one,
            sum w (v - mean)^2 / (1 - sum w^2).
    """
    k = views.shape[1]
    w = np.full(k, 1 / k) if weights is None else weights
    if k < 2:
        return np.zeros(len(views))
    centred = views - (views @ w)[:, None]
    return np.asarray(np.sqrt(centred**2 @ w / (1 - np.sum(w**2))))


def calibration_of(model: Regressor | Ensemble) -> Calibration:
    """Returns the calibration of a model's interval.

    Raises:
        ModelError: it has none: it was validated on too few molecules.
    """
    content = model.manifest.get("calibration")
    if content is None:
        raise ModelError(
            "this model has no calibrated interval",
            hint=f"it was validated on fewer than {FEWEST} molecules, or saved by an older lipo: "
            "fine-tune with a larger validation part, --split random --fractions 0.7,0.2,0.1, or "
            "predict without",
        )
    return Calibration.from_dict(content)


def calibrated_views(model: Regressor | Ensemble) -> int:
    """Returns how many SMILES of a molecule a model averages where none are named."""
    first = model.members[0] if isinstance(model, Ensemble) else model
    encoder = first.encoder if isinstance(first, KernelReadout) else first
    return encoder.settings.tta


def has_no_spread(model: Regressor | Ensemble, views: int | None) -> bool:
    """Says whether all of a model's predictions of a molecule are one: nothing can differ."""
    alone = not isinstance(model, Ensemble) or len(model.members) == 1
    return alone and (calibrated_views(model) if views is None else views) == 1


def predict_with_interval(
    model: Regressor | Ensemble, smiles: Sequence[str], *, views: int | None = None
) -> NDArray[np.float64]:
    """Returns prediction, spread, and the ends of the calibrated interval, [n, 4].

    Args:
        model: The regressor or ensemble.
        smiles: The molecules.
        views: SMILES of each that are averaged; None: as when the interval was calibrated.

    Raises:
        ModelError: the model has no calibration: it was validated on too few molecules.
    """
    calibration = calibration_of(model)
    predicted = model.predict_views(smiles, views=views)
    mean, sd = model.average(predicted), spread(predicted, model.weights(predicted.shape[1]))
    low, high = calibration.interval(mean, sd)
    return np.stack([mean, sd, low, high], axis=1)
