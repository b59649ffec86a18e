"""A fitted regressor: an encoder, its adapter, tokenizer and label scale, as one thing.

It predicts raw label units from SMILES, and is saved as a folder (`saving`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerFast

from lipo_cli import __version__
from lipo_cli.errors import ModelError
from lipo_cli.model.adapters import ParameterCount, attach, count_parameters, unwrap
from lipo_cli.model.base import resolve_base
from lipo_cli.model.batches import batches_in_order, collate, predicted_at_once
from lipo_cli.model.enumeration import enumerated, view_weights
from lipo_cli.model.folder import FORMAT, first_misfit
from lipo_cli.model.memory import give_back
from lipo_cli.model.merging import reading
from lipo_cli.model.network import Network, load_network, tokenizer_of
from lipo_cli.model.parallel import mapped
from lipo_cli.model.precision import autocast, out_of_memory_as_one_line, pick_device
from lipo_cli.model.saving import load_regressor, save_regressor
from lipo_cli.model.tokenizer import Encoded, encode
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import Peft, TrainingSettings

_SILENT = SilentProgress()
_MANY = 10_000
"""Sequences whose passes leave free memory behind that is worth giving back."""
_LESS_MEMORY = "fewer passes at once take less: OMP_NUM_THREADS=1"


class Regressor:
    """Predicts a property from SMILES.

    Attributes:
        model: The network, in PEFT's wrapper for `lora` and `ia3`.
        tokenizer: Its tokenizer.
        peft: The fine-tuning method.
        base: The checkpoint it starts from: its name and hashes.
        base_folder: Where that checkpoint's files are; None where a loaded model needs them not.
        manifest: What the folder says about itself.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerFast,
        peft: Peft,
        base: dict[str, str],
        settings: TrainingSettings,
        about: dict[str, Any] | None = None,
        base_folder: Path | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.peft: Peft = peft
        self.base = base
        self.base_folder = base_folder
        self.settings = settings
        self.device = pick_device(settings.device)
        self.model.to(self.device)
        self.manifest: dict[str, Any] = {
            "format": FORMAT,
            "lipo": __version__,
            "peft": peft,
            "base": base,
            "settings": settings.model_dump(mode="json"),
            **(about or {}),
        }

    @classmethod
    def from_base(cls, peft: Peft, settings: TrainingSettings, seed: int) -> Self:
        """Puts a fresh head (and adapter) on the pretrained encoder, drawn from `seed`."""
        base = resolve_base(settings.model)
        network = load_network(base, settings.dropout, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)  # LoRA's A is random: its draw belongs to the seed too
            model = attach(network, peft, settings)
        tokenizer = tokenizer_of(network, base.folder)
        return cls(model, tokenizer, peft, base.identity(), settings, base_folder=base.folder)

    @property
    def network(self) -> Network:
        """The network itself, adapters in place."""
        return unwrap(self.model)

    def head(self) -> nn.Module:
        """Returns the head that is trained (PEFT keeps a spare copy beside it)."""
        wrapped: Any = self.network.classifier
        head: nn.Module = (
            wrapped.modules_to_save["default"] if hasattr(wrapped, "modules_to_save") else wrapped
        )
        return head

    def set_label_scale(self, labels: NDArray[np.float64]) -> None:
        """Standardises labels inside the model by the mean and deviation of these."""
        head: Any = self.head()
        spread = float(np.std(labels))
        head.label_mean.fill_(float(np.mean(labels)))
        head.label_scale.fill_(spread if spread > 0 else 1.0)

    def parameters(self) -> ParameterCount:
        """Counts trainable and all parameters."""
        return count_parameters(self.model)

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Returns references to what training changes, the label scale included."""
        names = {n for n, p in self.model.named_parameters() if p.requires_grad}
        names |= {
            n
            for n, _ in self.model.named_buffers()
            if n.endswith(("label_mean", "label_scale")) and "original_module" not in n
        }
        return {n: t for n, t in self.model.state_dict().items() if n in names}

    def copy_state(self) -> dict[str, torch.Tensor]:
        """Returns a copy of what training changes, on the CPU."""
        return {n: t.detach().cpu().clone() for n, t in self.trained_state().items()}

    def restore_state(self, state: dict[str, torch.Tensor]) -> None:
        """Puts a copy back.

        Raises:
            ModelError: the names or shapes differ from what this method trains.
        """
        own = self.trained_state()
        if odd := first_misfit(own, state):
            raise ModelError(f"the saved weights do not fit this {self.peft} model: {odd}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    def encode(self, smiles: Sequence[str]) -> Encoded:
        """Returns token ids, and how many molecules the model does not see whole."""
        return encode(self.tokenizer, smiles, self.max_length)

    @property
    def max_length(self) -> int:
        """The longest sequence in tokens, of the settings and of the model."""
        return min(self.settings.max_length, self.network.max_tokens)

    def predict(
        self, smiles: Sequence[str], *, batch_size: int | None = None, views: int | None = None
    ) -> NDArray[np.float64]:
        """Predicts [n] values in raw label units, in the order given.

        Args:
            smiles: The molecules.
            batch_size: SMILES per pass; None: what suits the device.
            views: SMILES of each molecule that are averaged; None: as the settings say (`tta`).

        Raises:
            TrainingError: memory ran out.
        """
        return self.average(self.predict_views(smiles, batch_size=batch_size, views=views))

    def average(self, views: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the mean [n] of predictions of several SMILES [n, k], weighted as in training."""
        return views @ self.weights(views.shape[1])

    def weights(self, count: int) -> NDArray[np.float64]:
        """Returns the weights [count] of a molecule's SMILES in its average."""
        return view_weights(count, self.settings.randomise)

    def predict_views(
        self, smiles: Sequence[str], *, batch_size: int | None = None, views: int | None = None
    ) -> NDArray[np.float64]:
        """Predicts [n, views] values: the SMILES as given first, then others of the molecule."""
        count = self.settings.tta if views is None else views
        written = [text for each in smiles for text in enumerated(each, count, self.reads_whole)]
        return self._run(written, batch_size, embed=False)[:, 0].reshape(len(smiles), count)

    def reads_whole(self, smiles: str) -> bool:
        """Says whether the model reads a SMILES uncut and without unknown tokens."""
        found = self.encode([smiles])
        return found.n_truncated == found.n_unknown == 0

    def embed(
        self,
        smiles: Sequence[str],
        *,
        batch_size: int | None = None,
        progress: Progress = _SILENT,
    ) -> NDArray[np.float64]:
        """Returns mean-pooled embeddings [n, hidden] of the (fine-tuned) encoder.

        Args:
            smiles: The molecules.
            batch_size: Of a pass; None: what suits the device.
            progress: Told of molecules.
        """
        return self._run(smiles, batch_size, embed=True, progress=progress)

    @torch.inference_mode()
    def predict_embedded(self, embedded: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns predictions [n] in raw units of embeddings [n, hidden], a SMILES for each."""
        head = self.head()
        was_training = head.training
        head.eval()
        rows = torch.tensor(embedded, dtype=next(head.parameters()).dtype, device=self.device)
        found: NDArray[np.float64] = head(rows)[:, 0].cpu().numpy().astype(np.float64)
        head.train(was_training)
        return found

    def _run(
        self,
        smiles: Sequence[str],
        batch_size: int | None,
        *,
        embed: bool,
        progress: Progress = _SILENT,
    ) -> NDArray[np.float64]:
        if len(smiles) == 0:
            width = self.network.config.hidden_size if embed else 1
            return np.empty((0, width))
        ids = self.encode(smiles).ids
        was_training = self.model.training
        self.model.eval()
        result: NDArray[np.float64] | None = None
        batches = batches_in_order(
            [len(row) for row in ids], batch_size or predicted_at_once(self.device)
        )

        def computed(positions: NDArray[np.int64]) -> NDArray[np.float64]:
            batch = collate([ids[i] for i in positions], self.pad_id, self.device)
            with torch.inference_mode(), autocast(self.device, self.settings.precision):
                if embed:
                    values = self.network.encode(batch.input_ids, batch.attention_mask)
                else:
                    values = self.model(
                        input_ids=batch.input_ids, attention_mask=batch.attention_mask
                    ).logits
            return values.float().cpu().numpy().astype(np.float64)

        with out_of_memory_as_one_line("predicting", _LESS_MEMORY), reading(self.model, len(ids)):
            for positions, values in mapped(computed, batches, self.device):
                if result is None:
                    result = np.empty((len(ids), values.shape[1]))
                result[positions] = values
                progress.advance(len(positions))
        self.model.train(was_training)
        assert result is not None
        if len(ids) > _MANY:
            give_back()
        return result

    @property
    def pad_id(self) -> int:
        """The id of padding in the config: RoBERTa counts positions by it; others never see it."""
        return int(self.network.config.pad_token_id or 0)

    def save(self, folder: Path) -> None:
        """Writes the folder; up to 64 MiB of an adapter's base model go with it.

        A folder that needs nothing beside itself names no path of this machine.

        Raises:
            ModelError: the base model is gone, or has changed since it was loaded.
        """
        save_regressor(self, folder)

    @classmethod
    def load(cls, folder: Path | str, *, base: str | None = None, device: str = "auto") -> Self:
        """Loads a saved folder.

        Args:
            folder: What `save` wrote.
            base: Where an adapter's base model is now, when it is neither in the folder nor to be
                found by its recorded name.
            device: `auto`, `cpu` or `cuda`.

        Raises:
            ModelError: something is missing, damaged, or belongs to another base model.
        """
        return load_regressor(cls, Path(folder), base=base, device=device)
