"""`lipo score`: what each secondary point is worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lipo_cli.commands import influence_options as inf
from lipo_cli.commands import options as opt
from lipo_cli.commands import training_options as tune
from lipo_cli.commands.layers import settings_from

if TYPE_CHECKING:
    from lipo_cli.comparison.prepare import Prepared
    from lipo_cli.comparison.scoring import Scored
    from lipo_cli.settings import ScoreSettings


def score(
    method: Annotated[
        Literal["tsds", "influence", "knn", "loo", "uncertain"] | None,
        typer.Option(
            "--method",
            "-m",
            help="tsds: TS-DShapley; influence: influence functions; knn: KNN-Shapley; loo: "
            "leave-one-out on the ridge proxy; uncertain: how unsure the model is, no value. "
            "(default: tsds)",
        ),
    ] = None,
    game: Annotated[
        Literal["secondary", "empty"] | None,
        typer.Option(
            "--game",
            help="secondary: points join primary train; empty: chains from the empty set, as "
            "published. (default: secondary)",
        ),
    ] = None,
    relative_error: Annotated[
        float | None,
        typer.Option(
            "--relative-error",
            help="Stop when the median error of the sampling is below this share of the values' "
            "spread. (default: 0.1)",
        ),
    ] = None,
    components: Annotated[
        int | None,
        typer.Option("--components", help="Principal components. (default: 100)"),
    ] = None,
    part: inf.Parameters = None,
    curvature: inf.Curvature = None,
    solver: inf.Solver = None,
    damping: inf.Damping = None,
    tolerance: inf.Tolerance = None,
    curvature_rows: inf.CurvatureRows = None,
    table_gib: inf.TableGib = None,
    target: inf.Target = None,
    target_rows: inf.TargetRows = None,
    neighbours: Annotated[
        int | None,
        typer.Option("--neighbours", help="Of KNN-Shapley. (default: 5)"),
    ] = None,
    reference_peft: Annotated[
        Literal["full", "bitfit", "lora", "ia3"] | None,
        typer.Option(
            "--reference-peft",
            help="How the model that embeds the points is fine-tuned; `compare` takes its first "
            "--peft, and finds these values again where this is the same. (default: full)",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed. (default: 0)")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write the value table here, too.")
    ] = None,
    top: Annotated[int, typer.Option("--show", min=0, help="Points to show at each end.")] = 5,
    dataset: opt.DatasetOption = None,
    secondary: opt.SecondaryOption = None,
    data_dir: opt.DataDirOption = None,
    smiles_column: opt.SmilesColumnOption = None,
    label_column: opt.LabelColumnOption = None,
    on_invalid: opt.OnInvalidOption = None,
    duplicates: opt.DuplicatesOption = None,
    split: opt.SplitOption = None,
    split_seed: opt.SplitSeedOption = None,
    fractions: opt.FractionsOption = None,
    split_file: opt.SplitFileOption = None,
    keep_stereo_groups: opt.KeepStereoGroupsOption = None,
    model: tune.Model = None,
    epochs: tune.Epochs = None,
    learning_rate: tune.LearningRate = None,
    precision: tune.Precision = None,
    device: tune.Device = None,
    config: tune.ConfigFile = None,
    store: opt.StoreOption = opt.DEFAULT_STORE,
    as_json: opt.JsonOption = False,
) -> None:
    """Score every secondary point: a value above 0 means that adding it lowers the target loss.

    The target is the validation split; the test split has no say unless --target test is given.

    --json prints one object: dataset, split and scope (data and split in one name); method and
    game; reason (why sampling stopped, or how the system was solved) and converged; n_optimal (the
    points that the removal curve keeps), leaks (whether the target was test) and the other numbers
    of the computation; values, one object per point; by_target, with --target-rows, the points with
    a value for each row.
    """
    flags = locals()
    from lipo_cli.commands.dataset_lines import announce
    from lipo_cli.comparison.prepare import prepare
    from lipo_cli.settings import ScoreSettings

    if target_rows is not None:
        flags = {**flags, "target_rows": inf.parse_rows(target_rows)}
    settings = settings_from(ScoreSettings, config, flags)
    _check_flags(settings.method, flags)
    if settings.method == "influence" and settings.influence.solver == "ekfac":
        from lipo_cli.valuation.ekfac import check_ekfac

        check_ekfac(settings.influence, settings.reference_peft)
    if out is not None:
        opt.prepare_out(out, folder=True)
    prepared = prepare(settings.data)
    prepared.require_pool()
    announce(prepared)
    _run(settings, prepared, store, out, top, as_json=as_json)


_OWN_FLAGS = {
    "tsds": ("relative_error",),
    "influence": (
        "part",
        "curvature",
        "solver",
        "damping",
        "tolerance",
        "curvature_rows",
        "table_gib",
        "target",
        "target_rows",
    ),
    "knn": ("neighbours",),
}
"""Flags that one method reads; what sets up the proxy counts for every method."""


def _check_flags(method: str, flags: Mapping[str, Any]) -> None:
    """Refuses the flag of another method: it would have no effect.

    Raises:
        SettingsError: there is one.
    """
    from lipo_cli.errors import SettingsError

    for owner, names in _OWN_FLAGS.items():
        given = [name for name in names if flags[name] is not None]
        if given and owner != method:
            flag = "--parameters" if given[0] == "part" else f"--{given[0].replace('_', '-')}"
            raise SettingsError(
                f"the method '{method}' does not read it",
                where=flag,
                hint=f"it belongs to --method {owner}",
            )


def _run(
    settings: ScoreSettings,
    prepared: Prepared,
    root: Path,
    out: Path | None,
    top: int,
    *,
    as_json: bool,
) -> None:
    from lipo_cli.commands.compare_view import CompareView
    from lipo_cli.commands.console import emit_json, say
    from lipo_cli.commands.console import out as stdout
    from lipo_cli.commands.dataset_lines import tell_unread
    from lipo_cli.comparison.plan import Cell, Choice
    from lipo_cli.comparison.recorded_scores import scores_of
    from lipo_cli.comparison.reference import other_references, reference_model
    from lipo_cli.tracking.ledger import MlflowLedger
    from lipo_cli.tracking.store import open_store
    from lipo_cli.valuation.selection_text import parse_selection

    ledger = MlflowLedger(open_store(root), settings.experiment, anywhere=True)
    none = Choice("none", parse_selection("none"), "control")
    cell = Cell(none, settings.reference_peft, settings.seed)
    if others := other_references(cell, prepared, settings.training, ledger):
        say(
            f"a reference model fine-tuned by {' or '.join(others)} is in the store: "
            f"--reference-peft {others[0]} would use it, this trains one by {cell.peft}"
        )
    with CompareView(settings.training.epochs) as view:
        view.planned([cell], 1)
        fitted, trained = reference_model(cell, prepared, settings.training, ledger, view)
        scored = scores_of(
            settings.method, cell, fitted, prepared, settings.training, settings, ledger, view
        )
    max_length = settings.training.max_length
    tell_unread("training and validation", trained.n_truncated, trained.n_unknown, max_length)
    regressor = fitted.regressor
    pool = regressor.encode(prepared.require_pool().examples.smiles)
    tell_unread("secondary", pool.n_truncated, pool.n_unknown, regressor.max_length)
    say(f"{scored.method}: {scored.reason}")
    if out is not None:
        replaced = _write_out(scored, prepared, out)
        say(f"values: {out}" + (", in the place of earlier ones" if replaced else ""))
    if as_json:
        emit_json(_as_dict(settings, prepared, scored))
        return
    table = scored.table.sort_values("rank")
    columns = ["rank", "row", "value", "standard_error", "label", "smiles"]
    ends = (("highest", table.head(top)), ("lowest", table.tail(top))) if top else ()
    for title, part in ends:
        stdout.print(f"{title} values", style="bold")
        stdout.print(part[columns].to_string(index=False, float_format="%.4g"), markup=False)
    if scored.sentence:
        stdout.print(scored.sentence, markup=False)


def _write_out(scored: Scored, prepared: Prepared, out: Path) -> bool:
    """Writes tables and figures into a folder.

    Those of an earlier scoring go first, and what says whose values they are comes before them:
    wherever this is stopped, no values lie beside another scoring's name.

    Returns:
        Whether there were any.
    """
    from lipo_cli.commands.select_source import write_source
    from lipo_cli.comparison.recorded_scores import BY_TARGET
    from lipo_cli.comparison.score_figures import SCORE_FIGURES
    from lipo_cli.valuation.table import VALUE_FILES, write_values

    replaced = any((out / name).is_file() for name in VALUE_FILES)
    for name in (*VALUE_FILES, BY_TARGET, *(f"{figure}.png" for figure in SCORE_FIGURES)):
        (out / name).unlink(missing_ok=True)
    source = prepared.require_pool().table
    said = (scored.reason, scored.sentence)
    write_source(out, source, scored.method, prepared.scope(), leaks=scored.leaks, said=said)
    write_values(out, scored.table, scored.curve)
    if scored.by_target is not None:
        scored.by_target.to_csv(out / BY_TARGET, index=False)
    _copy_figures(scored, out)
    return replaced


def _copy_figures(scored: Scored, out: Path) -> None:
    """Puts the figures of the scoring's record beside its values."""
    import shutil

    from lipo_cli.comparison.score_figures import SCORE_FIGURES
    from lipo_cli.errors import TrackingError

    for name in SCORE_FIGURES:
        if scored.record is None:
            return
        try:
            shutil.copy(scored.record.artifact(f"figures/{name}.png"), out / f"{name}.png")
        except TrackingError:  # not every method has every figure
            continue


def _as_dict(settings: ScoreSettings, prepared: Prepared, scored: Scored) -> dict[str, Any]:
    """Returns what `--json` prints; the same for values computed now and found again."""
    by_target = scored.by_target
    rows = {} if by_target is None else {"by_target": by_target.to_dict("records")}
    return {
        **scored.figures,
        "dataset": prepared.dataset.name,
        "split": prepared.split.name,
        "scope": prepared.scope(),
        "method": settings.method,
        "game": settings.tsds.game,
        "reason": scored.reason,
        "converged": scored.converged,
        "n_optimal": scored.scores.n_optimal,
        "leaks": scored.leaks,
        "values": scored.table.to_dict("records"),
        **rows,
    }
