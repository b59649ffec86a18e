"""What a valuation asks of a game: marginal contributions along a permutation of its players."""

from __future__ import annotations

from typing import Protocol

from lipo_cli.valuation.arrays import BoolArray, FloatArray, IntArray


class Game(Protocol):
    """Players and a utility U that is a sum over validation folds."""

    @property
    def n_players(self) -> int:
        """The number of players."""

    @property
    def n_folds(self) -> int:
        """The number of folds that the utility is a sum of."""

    def marginals(self, permutation: IntArray) -> FloatArray:
        """Returns U_f(first j+1 players) - U_f(first j) for each j and fold f.

        Args:
            permutation: [k] distinct players, k <= n_players, in the order in which they join.

        Returns:
            [k, n_folds] marginal contributions; the sum over folds is that to U itself.
        """


class RowGame(Game, Protocol):
    """A game whose utility is minus the mean of a squared error over validation rows."""

    @property
    def fold_of(self) -> IntArray:
        """[m] the fold of each validation row."""

    def squared_errors(self, permutation: IntArray, rows: BoolArray | None = None) -> FloatArray:
        """Returns [k+1, m]: the squared error of each row after 0, 1, ..., k players.

        `rows` [m] says which rows are wanted, None: all.
        """
