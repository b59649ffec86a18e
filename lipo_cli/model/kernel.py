"""A kernel readout: support-vector regression on the frozen encoder's output and on the structure.

The kernel is the sum of a Gaussian one of the encoder's mean-pooled output and of the Tanimoto
similarity of Morgan fingerprints (a kernel: Ralaivola et al., Neural Networks 18 (2005) 1093).
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
from scipy import sparse
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from lipo_cli import __version__
from lipo_cli.chem.fingerprints import N_BITS, RADIUS, morgan_bits, tanimoto
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
from lipo_cli.model.precision import out_of_memory_as_one_line
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import TrainingSettings

KIND = "kernel"
Floats = NDArray[np.float64]
_FILE = "kernel.safetensors"
_TOKENIZER = "tokenizer.json"
_HASHED = {"kernel_sha256": _FILE, "tokenizer_sha256": f"{BASE_FOLDER}/{_TOKENIZER}"}
_ROWS_AT_ONCE = 2048
PENALTY, EPSILON, STRUCTURE = 3.0, 0.1, 0.5
"""C and epsilon in standard deviations of the labels, and what Tanimoto weighs beside the Gaussian
kernel, whose gamma is one over the embedding's width. Chosen on validation of Lipophilicity's
reference split (benchmarks/kernel_grid.py), where neighbours in the grid are as good."""
MOST_ROWS = 8000
"""A kernel matrix of more molecules does not fit a laptop; of more, this many are drawn."""
RECIPE = (
    f"C={PENALTY:g} epsilon={EPSILON:g} gamma=1/width tanimoto={STRUCTURE:g} "
    f"morgan={RADIUS}/{N_BITS} rows={MOST_ROWS}"
)
"""What decides a readout beside the encoder and the molecules."""


@dataclass(frozen=True)
class Machine:
    """A fitted support-vector regression: sum_i dual_i k(x, x_i) + intercept.

    k(x, x_i) = exp(-gamma |z - vector_i|^2) + structure T(x, x_i) with standardised embeddings z
    and the Tanimoto similarity T.

    Attributes:
        mean: [d] means of the embeddings of train.
        scale: [d] their standard deviations.
        vectors: [s, d] embeddings of the support molecules, standardised.
        bits: [s, 2048 / 8] their Morgan fingerprints, packed.
        dual: [s] their coefficients, label units.
        intercept: [1] label units.
        gamma: [1] of the Gaussian kernel.
        structure: [1] what Tanimoto weighs.
    """

    mean: Floats
    scale: Floats
    vectors: Floats
    bits: NDArray[np.uint8]
    dual: Floats
    intercept: Floats
    gamma: Floats
    structure: Floats

    def __call__(self, embeddings: Floats, bits: sparse.csr_matrix) -> Floats:
        """Returns predictions [n] in label units.

        Args:
            embeddings: [n, d] of the molecules.
            bits: [n, 2048] their fingerprints.
        """
        known = sparse.csr_matrix(np.unpackbits(self.bits, axis=1, count=N_BITS).astype(np.int32))
        found = np.empty(len(embeddings))
        for start in range(0, len(found), _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            z = (embeddings[some] - self.mean) / self.scale
            kernel = gaussian(z, self.vectors, self.gamma)
            kernel += self.structure * tanimoto(bits[some], known)
            found[some] = kernel @ self.dual
        return found + self.intercept


def gaussian(a: Floats, b: Floats, gamma: Floats) -> Floats:
    """Returns the kernel matrix exp(-gamma |a_i - b_j|^2), [n_a, n_b]."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
    return np.asarray(np.exp(-gamma * np.maximum(squares - 2 * a @ b.T, 0.0)))


class KernelReadout:
    """Predicts a property from SMILES by a kernel on a pretrained encoder's output and structure.

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
        """Embeds the training molecules once and fits the kernel on them, at most `MOST_ROWS`.

        Args:
            settings: Names the pretrained model, the precision and the device.
            smiles: Training molecules.
            labels: [n] their labels, raw units.

        Raises:
            ModelError: the pretrained model cannot be used, or a label is no finite number.
            TrainingError: memory ran out.
        """
        if not np.isfinite(labels).all():
            raise ModelError("a label is no finite number", where="the kernel readout")
        hint = "take --no-kernel, or train on fewer molecules"
        with out_of_memory_as_one_line("the kernel readout", hint):
            return cls._fitted(settings, smiles, labels)

    @classmethod
    def _fitted(cls, settings: TrainingSettings, smiles: Sequence[str], labels: Floats) -> Self:
        encoder = Regressor.from_base("full", settings, 0)
        if len(smiles) > MOST_ROWS:
            drawn = np.sort(np.random.default_rng(0).choice(len(smiles), MOST_ROWS, replace=False))
            smiles, labels = [smiles[i] for i in drawn], labels[drawn]
        scaler = StandardScaler()
        z, bits = scaler.fit_transform(encoder.embed(smiles)), morgan_bits(smiles)
        centre, spread = float(np.mean(labels)), float(np.std(labels)) or 1.0
        gamma, structure = np.array([1 / z.shape[1]]), np.array([STRUCTURE])
        kernel = gaussian(z, z, gamma) + structure * tanimoto(bits, bits)
        fitted = SVR(kernel="precomputed", C=PENALTY, epsilon=EPSILON)
        fitted.fit(kernel, (labels - centre) / spread)
        chosen = fitted.support_
        machine = Machine(
            mean=np.asarray(scaler.mean_),
            scale=np.asarray(scaler.scale_),
            vectors=z[chosen],
            bits=np.packbits(bits[chosen].toarray().astype(bool), axis=1),
            dual=spread * np.asarray(fitted.dual_coef_, dtype=np.float64)[0],
            intercept=centre + spread * np.asarray(fitted.intercept_, dtype=np.float64),
            gamma=gamma,
            structure=structure,
        )
        return cls(encoder, machine, {"n_train": len(smiles)})

    def predict(
        self, smiles: Sequence[str], *, batch_size: int | None = None, views: int | None = None
    ) -> Floats:
        """Predicts [n] values in raw label units, in the order given."""
        return self.average(self.predict_views(smiles, batch_size=batch_size, views=views))

    def predict_views(
        self, smiles: Sequence[str], *, batch_size: int | None = None, views: int | None = None
    ) -> Floats:
        """Predicts [n, views] values, all of a row the same: it reads the SMILES as given alone.

        It was fitted on canonical SMILES only, and other ones add no accuracy (docs/benchmarks.md).
        """
        count = self.encoder.settings.tta if views is None else views
        if not smiles:
            return np.empty((0, count))
        embedded = self.encoder.embed(smiles, batch_size=batch_size)
        return np.repeat(self.machine(embedded, morgan_bits(smiles))[:, None], count, axis=1)

    def average(self, views: Floats) -> Floats:
        """Returns the mean [n] of predictions of several SMILES [n, k]."""
        return self.encoder.average(views)

    def weights(self, count: int) -> Floats:
        """Returns the weights [count] of a molecule's SMILES in its average."""
        return self.encoder.weights(count)

    def save(self, folder: Path) -> None:
        """Writes the folder, the base model in it and its manifest last.

        Raises:
            ModelError: the base model is gone, or has changed since it was loaded.
        """
        folder.mkdir(parents=True, exist_ok=True)
        base, source = self.encoder.base, self.encoder.base_folder
        # Whatever its size: the encoder is the model, as the weights of a fine-tuned one are.
        whole = source is not None and write_base(source, base, folder, whatever_size=True)
        name = portable_name(base["name"]) if whole else base["name"]
        tokenizer = folder / BASE_FOLDER / _TOKENIZER
        tokenizer.parent.mkdir(exist_ok=True)
        self.encoder.tokenizer.backend_tokenizer.save(str(tokenizer))
        arrays = {f.name: getattr(self.machine, f.name) for f in fields(Machine)}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / _FILE)
        self.manifest["base"] = {**base, "name": name}
        self.manifest["settings"] = {**self.manifest["settings"], "model": name}
        self.manifest["self_contained"] = whole
        self.manifest["kernel_sha256"] = sha256_of(folder / _FILE)
        self.manifest["tokenizer_sha256"] = sha256_of(tokenizer)
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
        if missing := sorted({"base", "settings", *_HASHED} - manifest.keys()):
            raise ModelError(f"the manifest lacks {', '.join(missing)}", where=folder)
        for key, inside in _HASHED.items():
            if not (folder / inside).is_file() or sha256_of(folder / inside) != manifest[key]:
                raise ModelError(
                    f"{inside} is not the file that the manifest describes",
                    where=folder,
                    hint="the folder is damaged or mixed; export the model again",
                )
        found = matching_base(base, manifest, folder)
        settings = read_settings(manifest, folder, device=device, model=str(found.folder))
        encoder = Regressor.from_base("full", settings, 0)
        encoder.base = manifest["base"]
        arrays = load_file(folder / _FILE)
        if missing := sorted({f.name for f in fields(Machine)} - arrays.keys()):
            raise ModelError(f"{_FILE} lacks {', '.join(missing)}", where=folder)
        machine = Machine(**{f.name: arrays[f.name] for f in fields(Machine)})
        own = ("kind", "peft", "base", "settings", *_HASHED)
        return cls(encoder, machine, {k: v for k, v in manifest.items() if k not in own})
