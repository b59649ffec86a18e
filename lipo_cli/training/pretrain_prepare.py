"""What a pretraining run starts from: its corpus, batches held out, model and targets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lipo_cli.errors import DataError
from lipo_cli.model.base import Base
from lipo_cli.model.tokenizer import MolformerTokenizer, load_tokenizer
from lipo_cli.progress import Progress
from lipo_cli.settings import PretrainSettings
from lipo_cli.training.corpus import Corpus, gather_corpus
from lipo_cli.training.descriptor_targets import DescriptorTargets, descriptor_targets
from lipo_cli.training.masking import MaskedBatch, MaskingSpec, held_out_batches
from lipo_cli.training.objectives import HeldOut
from lipo_cli.training.pretrain_folder import PretrainFolder
from lipo_cli.training.pretrain_model import (
    Start,
    batch_size_of,
    longest,
    masking_spec,
    objective_of,
    starting_model,
    tokenizer_of,
)
from lipo_cli.training.pretrain_source import Source, excluded_skeletons
from lipo_cli.training.stop_request import StopRequest
from lipo_cli.training.views import Positions, hold_out
from lipo_cli.training.workers import usable_cores

_OPENING = 4_000
"""Molecules on which the descriptor head starts, in closed form."""


@dataclass(frozen=True)
class Prepared:
    """What a run starts from.

    Attributes:
        start: The model and its tokenizer.
        spec: How molecules become masked batches.
        train: Positions in the corpus that are trained on.
        held_out: Batches of the others.
        opening: Whole training molecules on which the descriptor head starts.
        n_validation: Molecules held out.
        n_unknown: Molecules with a token that the tokenizer does not know.
    """

    start: Start
    spec: MaskingSpec
    train: Positions
    held_out: HeldOut
    opening: list[MaskedBatch]
    n_validation: int
    n_unknown: int

    def notes(self) -> list[str]:
        """Returns what the user should know of the start, in lines."""
        lines = []
        if self.n_unknown:
            lines.append(f"{self.n_unknown:,} molecules have tokens the model does not know")
        if self.start.new_head:
            lines.append("the checkpoint has no LM head: it starts from random weights")
        return lines


def clean_corpus(
    settings: PretrainSettings,
    source: Source,
    base: Base | None,
    folder: PretrainFolder,
    progress: Progress,
    stop: StopRequest,
) -> tuple[Corpus, list[str]]:
    """Returns the cleaned molecules, from the folder when an earlier part of the run made them.

    Raises:
        DataError: there are too few.
    """
    if (kept := folder.corpus()) is not None:
        return kept, []
    excluded, notes = excluded_skeletons(settings.exclude)
    corpus = gather_corpus(
        source.pairs(),
        source.name,
        max_length=longest(settings, base),
        excluded=excluded,
        on_invalid=settings.on_invalid,
        workers=usable_cores() if settings.workers is None else settings.workers,
        progress=progress,
        check=stop.check,
    )
    if len(corpus) < 2:
        raise DataError("one molecule is too few to train and to validate", where=source.name)
    folder.save_corpus(corpus)
    return corpus, notes


def prepare(
    settings: PretrainSettings, corpus: Corpus, base: Base | None, folder: PretrainFolder
) -> Prepared:
    """Builds model, tokenizer and held-out batches."""
    tokenizer = _tokenizer(settings, corpus, base, folder)
    spec = masking_spec(settings, tokenizer, longest(settings, base), batch_size_of(settings))
    train, validation = hold_out(len(corpus), settings.validation, settings.seed)

    def shown(positions: Positions, clean: float) -> list[MaskedBatch]:
        smiles = [corpus.smiles(i) for i in positions.tolist()]
        return held_out_batches(smiles, positions, replace(spec, clean=clean))

    objective = objective_of(settings)
    held_out = HeldOut(
        masked=[] if objective == "descriptors" else shown(validation, 0.0),
        clean=[] if objective == "mlm" else shown(validation, 1.0),
    )
    opening = [] if objective == "mlm" else shown(train[:: max(1, len(train) // _OPENING)], 1.0)
    strange = np.array([t not in spec.vocabulary for t in corpus.tokens], dtype=bool)
    n_unknown = int(np.add.reduceat(strange[corpus.flat], corpus.offsets[:-1]).astype(bool).sum())
    start = starting_model(settings, tokenizer, base)
    return Prepared(start, spec, train, held_out, opening, len(validation), n_unknown)


def _tokenizer(
    settings: PretrainSettings, corpus: Corpus, base: Base | None, folder: PretrainFolder
) -> MolformerTokenizer:
    """Counting the tokens of a million molecules takes a while: it is done once in a run."""
    if base is None and (folder.state_folder / "tokenizer.json").is_file():
        return load_tokenizer(folder.state_folder)
    tokenizer = tokenizer_of(corpus, base, settings.seed)
    if base is None:
        partial = folder.state_folder / "tokenizer.partial"
        tokenizer.backend_tokenizer.save(str(partial))
        partial.replace(folder.state_folder / "tokenizer.json")
    return tokenizer


def targets_of(
    settings: PretrainSettings,
    corpus: Corpus,
    train: Positions,
    folder: PretrainFolder,
    progress: Progress,
    stop: StopRequest,
) -> DescriptorTargets | None:
    """Returns the descriptors of the corpus; None where they are not asked."""
    if objective_of(settings) == "mlm":
        return None
    workers = usable_cores() if settings.workers is None else settings.workers
    return descriptor_targets(
        corpus, train, folder.state_folder, workers=workers, progress=progress, check=stop.check
    )
