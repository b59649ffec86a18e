"""A kernel readout: support-vector regression on the frozen encoder's mean-pooled output.

Nothing of the network is trained. Its errors are other ones than those of fine-tuned networks, so
that it is worth most as a member of an ensemble with them (docs/benchmarks.md). The fit is
scikit-learn's (Drucker et al. 1997; Chang & Lin 2011), the prediction a few lines: what is saved
are arrays, not a pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from lipo_cli import __version__
from lipo_cli.errors import ModelError
from lipo_cli.model.base import sha256_of
from lipo_cli.model.folder import (
    BASE_FOLDER,
    FORMAT,
    matching_base,
    portable_name,
    read_json,
    read_settings,
    write_base,
    write_json,
)
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import TrainingSettings

KIND = "kernel"
Floats = NDArray[np.float64]
_FILE = "kernel.safetensors"
_ROWS_AT_ONCE = 2048
PENALTY, EPSILON = 3.0, 0.1
"""C and epsilon in standard deviations of the labels; gamma is one over the embedding's width.
Chosen on validation of Lipophilicity's reference split among C 3 and 10, gamma 1/4 to 4 over it."""


@dataclass(frozen=True)
class Machine:
    """A fitted support-vector regression: sum_i dual_i exp(-gamma |z - vector_i|^2) + intercept.

    Attributes:
        mean: [d] means of the embeddings of train.
        scale: [d] their standard deviations.
        vectors: [s, d] support vectors, standardised.
        dual: [s] their coefficients, label units.
        intercept: [1] label units.
        gamma: [1] of the kernel.
    """

    mean: Floats
    scale: Floats
    vectors: Floats
    dual: Floats
    intercept: Floats
    gamma: Floats

    def __call__(self, embeddings: Floats) -> Floats:
        """Returns predictions [n] in label units of embeddings [n, d]."""
        z = (embeddings - self.mean) / self.scale
        found = np.empty(len(z))
        for start in range(0, len(z), _ROWS_AT_ONCE):
            some = z[start : start + _ROWS_AT_ONCE]
            squares = (some**2).sum(axis=1)[:, None] + (self.vectors**2).sum(axis=1)
            distance = np.maximum(squares - 2 * some @ self.vectors.T, 0.0)
            found[start : start + _ROWS_AT_ONCE] = np.exp(-self.gamma * distance) @ self.dual
        return found + self.intercept


class KernelReadout:
    """Predicts a property from SMILES by a kernel on a pretrained encoder's output.

    Attributes:
        encoder: The pretrained network; its head is not used.
        machine: What was fitted.
        manifest: What the folder says about itself.
    """

    peft = KIND

    def __init__(
        self, encoder: Regressor, machine: Machine, about: dict[str, Any] | None = None
    ) -> None:
        self.encoder = encoder
        self.machine = machine
        self.manifest: dict[str, Any] = {
            "format": FORMAT,
            "lipo": __version__,
            "kind": KIND,
            "peft": KIND,
            "base": encoder.base,
            "settings": encoder.settings.model_dump(mode="json"),
            **(about or {}),
        }

    @classmethod
    def fit(cls, settings: TrainingSettings, smiles: Sequence[str], labels: Floats) -> Self:
        """Embeds the training molecules once and fits the kernel on them.

        Args:
            settings: Names the pretrained model, the precision and the device.
            smiles: Training molecules.
            labels: [n] their labels, raw units.

        Raises:
            ModelError: the pretrained model cannot be used.
        """
        encoder = Regressor.from_base("full", settings, 0)
        embedded = encoder.embed(smiles)
        scaler = StandardScaler().fit(embedded)
        centre, spread = float(np.mean(labels)), float(np.std(labels)) or 1.0
        gamma = 1 / embedded.shape[1]
        fitted = SVR(C=PENALTY, epsilon=EPSILON, gamma=gamma).fit(
            scaler.transform(embedded), (labels - centre) / spread
        )
        machine = Machine(
            mean=np.asarray(scaler.mean_),
            scale=np.asarray(scaler.scale_),
            vectors=np.asarray(fitted.support_vectors_, dtype=np.float64),
            dual=spread * np.asarray(fitted.dual_coef_, dtype=np.float64)[0],
            intercept=centre + spread * np.asarray(fitted.intercept_, dtype=np.float64),
            gamma=np.array([gamma]),
        )
        return cls(encoder, machine)

    def predict(
        self, smiles: Sequence[str], *, batch_size: int | None = None, views: int | None = None
    ) -> Floats:
        """Predicts [n] values in raw label units, in the order given."""
        return self.average(self.predict_views(smiles, batch_size=batch_size, views=views))

    def predict_views(
        self, smiles: Sequence[str], *, batch_size: int | None = None, views: int | None = None
    ) -> Floats:
        """Predicts [n, views] values: the SMILES as given first, then others of the molecule."""
        written, count = self.encoder.written_views(smiles, views)
        embedded = self.encoder.embed(written, batch_size=batch_size)
        return self.machine(embedded).reshape(len(smiles), count)

    def average(self, views: Floats) -> Floats:
        """Returns the mean [n] of predictions of several SMILES [n, k]."""
        return self.encoder.average(views)

    def weights(self, count: int) -> Floats:
        """Returns the weights [count] of a molecule's SMILES in its average."""
        return self.encoder.weights(count)

    def save(self, folder: Path) -> None:
        """Writes the folder, its manifest last; up to 64 MiB of the base model go with it.

        Raises:
            ModelError: the base model is gone, or has changed since it was loaded.
        """
        folder.mkdir(parents=True, exist_ok=True)
        base, source = self.encoder.base, self.encoder.base_folder
        whole = source is not None and write_base(source, base, folder)
        name = portable_name(base["name"]) if whole else base["name"]
        tokenizer = folder / BASE_FOLDER / "tokenizer.json" if whole else folder / "tokenizer.json"
        self.encoder.tokenizer.backend_tokenizer.save(str(tokenizer))
        arrays = {f.name: getattr(self.machine, f.name) for f in fields(Machine)}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / _FILE)
        self.manifest["base"] = {**base, "name": name}
        self.manifest["settings"] = {**self.manifest["settings"], "model": name}
        self.manifest["self_contained"] = whole
        self.manifest["kernel_sha256"] = sha256_of(folder / _FILE)
        write_json(folder / "manifest.json", self.manifest)

    @classmethod
    def load(cls, folder: Path | str, *, base: str | None = None, device: str = "auto") -> Self:
        """Loads a saved folder.

        Args:
            folder: What `save` wrote.
            base: Where the base model is now, when it is neither in the folder nor to be found by
                its recorded name.
            device: `auto`, `cpu` or `cuda`.

        Raises:
            ModelError: something is missing, damaged, or belongs to another base model.
        """
        folder = Path(folder)
        manifest = read_json(folder / "manifest.json")
        if missing := sorted({"base", "settings", "kernel_sha256"} - manifest.keys()):
            raise ModelError(f"the manifest lacks {', '.join(missing)}", where=folder)
        file = folder / _FILE
        if not file.is_file() or sha256_of(file) != manifest["kernel_sha256"]:
            raise ModelError(
                f"{_FILE} is not the file that the manifest describes",
                where=folder,
                hint="the folder is damaged or mixed; export the model again",
            )
        found = matching_base(base, manifest, folder)
        settings = read_settings(manifest, folder, device=device, model=str(found.folder))
        encoder = Regressor.from_base("full", settings, 0)
        encoder.base = manifest["base"]
        arrays = load_file(file)
        if missing := sorted({f.name for f in fields(Machine)} - arrays.keys()):
            raise ModelError(f"{_FILE} lacks {', '.join(missing)}", where=folder)
        machine = Machine(**{f.name: arrays[f.name] for f in fields(Machine)})
        own = ("kind", "peft", "base", "settings", "kernel_sha256")
        return cls(encoder, machine, {k: v for k, v in manifest.items() if k not in own})
