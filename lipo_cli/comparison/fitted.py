"""A reference model as every scoring method needs it: loaded once, each molecule embedded once."""

from __future__ import annotations

from dataclasses import dataclass, field

from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress
from lipo_cli.training.examples import Examples
from lipo_cli.valuation.arrays import FloatArray


@dataclass(frozen=True)
class Fitted:
    """A fitted reference model and what it has embedded so far.

    Attributes:
        regressor: The model; it is not trained any further.
    """

    regressor: Regressor
    _known: dict[tuple[str, ...], FloatArray] = field(default_factory=dict, repr=False)

    def embed(self, *sets: Examples, progress: Progress) -> list[FloatArray]:
        """Returns the embeddings [n, D] of each set, in the order of its molecules.

        What was embedded for one method is what the next one gets: read-only, the same bits.

        Args:
            sets: The molecules.
            progress: Told of those that are not known yet.
        """
        keys = [tuple(each.smiles) for each in sets]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            progress.start("embedding", sum(map(len, new)), "molecules")
            try:
                for key in new:
                    rows = self.regressor.embed(key, progress=progress)
                    rows.flags.writeable = False
                    self._known[key] = rows
            finally:
                progress.finish()
        return [self._known[key] for key in keys]

    def by_molecule(self) -> dict[str, FloatArray]:
        """Returns the embedding [D] of every molecule that was embedded: views, no copies."""
        return {
            text: row
            for smiles, rows in self._known.items()
            for text, row in zip(smiles, rows, strict=True)
        }
