"""The page says what the comparison found, to everyone, and nothing that a file smuggles in."""

from __future__ import annotations

import base64
import json
import re
import shutil
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lipo_cli.chem.audit import audit_secondary
from lipo_cli.commands.compare_output import write_result
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.plan import Cell, Choice
from lipo_cli.comparison.prepare import prepare
from lipo_cli.comparison.report import build_report
from lipo_cli.comparison.report_html import TEMPLATES, make_report, render, write_report
from lipo_cli.comparison.report_record import RECORD, read_material, write_record
from lipo_cli.comparison.result import Comparison
from lipo_cli.comparison.scoring import Scored
from lipo_cli.comparison.summary import Overlap, pick_champion, summarise
from lipo_cli.comparison.tuning_methods import Tunings
from lipo_cli.comparison.tuning_result import Tuned
from lipo_cli.comparison.tuning_trial import TrialResult
from lipo_cli.comparison.verdict import Verdict
from lipo_cli.errors import TrackingError
from lipo_cli.model.adapters import DEFAULT_LEARNING_RATE
from lipo_cli.settings import CompareSettings, Peft, ScoringMethod
from lipo_cli.valuation.selection import PointScores, Selection
from lipo_cli.valuation.table import value_table
from tests.comparison.conftest import World, small_world
from tests.fixtures.pages import Element, parse, rows

ROOT = Path(__file__).parents[2]
SELECTIONS = ("none", "all", "tsds:top=6", "influence:top=6", "random:k=6")
SIZES = {"none": 0, "all": 24, "tsds:top=6": 6, "influence:top=6": 6, "random:k=6": 6}
METHODS: tuple[Peft, ...] = ("lora", "bitfit")
MINUS = "\N{MINUS SIGN}"


def rmse(selection: str, peft: str, seed: int) -> float:
    """Numbers that differ from cell to cell in the third decimal."""
    return 0.6 + 0.0131 * SELECTIONS.index(selection) + 0.1 * METHODS.index(peft) + 0.004 * seed


def cell(selection: str, peft: Peft, seed: int) -> CellResult:
    value = rmse(selection, peft, seed)
    predictions = pd.DataFrame(
        {"part": ["test"] * 3, "measured": [1.0, 2.0, 3.0], "predicted": [1.1, 1.9, 3.2]}
    )
    return CellResult(
        selection=selection, peft=peft, seed=seed, role="asked" if ":top" in selection else
        "control", status="finished", run_id=f"{selection}-{peft}-{seed}",
        n_selected=SIZES[selection], n_train=60 + SIZES[selection], n_truncated=0, n_unknown=0,
        trainable_parameters=1234, seconds=10.0 + seed, best_epoch=2, val_rmse=value - 0.05,
        test_rmse=value, test_mae=value - 0.1, test_r2=0.5, test_spearman=0.7,
        predictions=predictions,
        history=[{"epoch": 1.0, "val_rmse": value, "train_rmse": value}],
    )  # fmt: skip


def scored(method: ScoringMethod, pool_rows: np.ndarray, smiles: list[str], labels: Any) -> Scored:
    n = len(smiles)
    rng = np.random.default_rng(len(method))
    values = rng.normal(size=n)
    scores = PointScores(values, np.full(n, 0.01), 5, smiles)
    selected = Selection("optimal", method=method).select(scores, n, rng)
    error = 0.3 + (np.arange(n + 1) - 5.0) ** 2 / 1000
    zeros = np.zeros(n + 1)
    curve = pd.DataFrame(
        {
            "n_removed": np.arange(n + 1), "n_kept": np.arange(n, -1, -1),
            "utility": -error[::-1], "utility_error": zeros, "gain_over_all": zeros,
            "gain_over_all_error": zeros, "gain_over_none": zeros, "gain_over_none_error": zeros,
        }
    )  # fmt: skip
    table = value_table(pool_rows, smiles, labels, scores, selected)
    figures = {"n_optimal": 5.0, "n_positive": float((values > 0).sum())}
    return Scored(method, scores, table, curve, figures, "keeping 5 of them", "exact")


def verdict(selection: str, peft: Peft, **changes: Any) -> Verdict:
    given = {
        "model": None, "against": "none", "n_seeds": 2, "n_splits": 1, "delta": 0.0131,
        "low": -0.002, "high": 0.02, "p": 0.2, "p_holm": 0.4, "n_tests": 3, "detectable": 0.031,
    }  # fmt: skip
    return Verdict(selection=selection, peft=peft, **{**given, **changes})


VERDICTS = [
    verdict("all", "lora"),
    verdict("tsds:top=6", "lora", delta=-0.0123, low=-0.02, high=-0.004, p=0.01, p_holm=0.03),
    verdict("tsds:top=6", "bitfit", delta=0.0262, low=0.01, high=0.04, p=0.001, p_holm=0.004),
    verdict(
        "influence:top=6",
        "lora",
        n_seeds=1,
        low=None,
        high=None,
        p=None,
        p_holm=None,
        n_tests=None,
        detectable=None,
    ),
]


def result_in(folder: Path, settings: CompareSettings, **changes: Any) -> Path:
    """Writes the files of a made-up comparison on real molecules; returns the folder."""
    prepared = prepare(settings.data)
    pool = prepared.require_pool()
    cells = changes.pop(
        "cells", [cell(s, p, i) for i in (0, 1) for p in METHODS for s in SELECTIONS]
    )
    summary = summarise(cells, VERDICTS)
    methods: tuple[ScoringMethod, ...] = ("tsds", "influence")
    content: dict[str, Any] = {
        "prepared": prepared,
        "cells": cells,
        "summary": summary,
        "overlaps": [
            Overlap("tsds:top=6", "influence:top=6", 0.2),
            Overlap("all", "random:k=6", 0.25),
        ],
        "scored": {
            m: scored(m, pool.rows, list(pool.examples.smiles), pool.examples.labels)
            for m in methods
        },
        "best": pick_champion(cells),
        "champion": {
            "model": "lipophilicity", "version": "3", "run_id": "none-lora-0", "replaced": True,
            "reason": "0.5 is better than 0.6",
        },
        "run_id": "run-of-the-comparison",
        "verdicts": VERDICTS,
    }  # fmt: skip
    comparison = Comparison(**content | changes)
    for method, found in comparison.scored.items():
        best = np.argsort(-found.scores.values)[:6]
        comparison.chosen[f"{method}:top=6"] = best
    paths = write_result(comparison, settings, folder)
    audit = audit_secondary(pool.table, prepared.dataset.primary, prepared.split)
    figures = [path for path in paths if path.suffix == ".png"]
    facts = {"lipo": "0.1.0", "processor": "A <fast> one"}
    write_record(folder, comparison, settings, audit, facts, "lipo compare -s tsds", figures)
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> CompareSettings:
    world = small_world(tmp_path_factory.mktemp("world"), Path("small"))
    return world.settings(selections=("tsds:top=6", "influence:top=6"), peft=METHODS, seeds=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, settings: CompareSettings) -> Path:
    """The files of a result, written once; no test may change them."""
    return result_in(tmp_path_factory.mktemp("made") / "result", settings)


@pytest.fixture(scope="module")
def page(made: Path) -> Element:
    return parse(make_report(made))


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Path:
    """The same files for a test that changes them."""
    return Path(shutil.copytree(made, tmp_path / "result"))


def test_everyone_can_read_it(page: Element) -> None:
    assert page.one("html").attributes["lang"] == "en"
    assert page.one("title").text == page.one("h1").text
    levels = [int(e.tag[1]) for e in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    names = [element.id for element in page.everything() if element.id is not None]
    assert len(set(names)) == len(names)
    for link in page.all("a"):
        assert (link.attributes["href"] or "").removeprefix("#") in names
    pictures = page.all("img")
    assert len(pictures) == 8 + 24  # four of cells, two of each scoring, six molecules at each end
    for picture in pictures:
        assert len((picture.attributes["alt"] or "").split()) > 2
    for table in page.all("table"):
        assert table.one("caption").text
        assert all(h.attributes["scope"] == "col" for h in table.one("thead").all("th"))
        width = len(table.one("thead").all("th"))
        for row in table.one("tbody").all("tr"):
            heads = row.all("th")
            assert [h.attributes["scope"] for h in heads] == ["row"]
            cells = row.all("th", "td")
            assert sum(int(c.attributes.get("colspan") or 1) for c in cells) == width
        box = table.above
        assert box is not None
        assert (box.attributes["class"], box.attributes["tabindex"]) == ("scroll", "0")
        assert box.attributes["aria-labelledby"] == table.one("caption").id


def test_it_fetches_and_runs_nothing(page: Element, made: Path) -> None:
    assert not page.all("script", "link", "iframe", "object", "embed", "base", "form")
    for element in page.everything():
        assert not [name for name in element.attributes if name.startswith("on")]
        for name in ("src", "href"):
            target = element.attributes.get(name)
            assert target is None or target.startswith(("data:image/", "#"))
    text = make_report(made)
    assert "url(" not in text
    assert "@import" not in text
    policy = [m.attributes["content"] for m in page.all("meta") if "http-equiv" in m.attributes]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_cell_of_the_grid_is_there_with_its_number(page: Element) -> None:
    grid = {row[0].removesuffix(" (control)"): row[1:] for row in rows(_table(page, "table-grid"))}
    assert list(grid) == list(SELECTIONS)
    lines = rows(_table(page, "table-summary"))
    for place, peft in enumerate(METHODS):
        means = {s: np.mean([rmse(s, peft, i) for i in (0, 1)]) for s in SELECTIONS}
        spread = np.std([0, 0.004], ddof=1)
        for selection, mean in means.items():
            shown = f"{mean:.3f} ± {spread:.3f}"
            assert grid[selection][place].startswith(shown)
            (line,) = [r for r in lines if r[0] == selection and r[1].lower() == peft]
            assert line[2:5] == [str(SIZES[selection]), str(60 + SIZES[selection]), "2"]
            assert line[5] == f"{mean - 0.05:.3f}"
            assert line[6].startswith(shown)
            # In words, not in colour: the lowest of the method, and no other.
            assert ("lowest" in line[6]) == (mean == min(means.values()))
            assert ("lowest" in grid[selection][place]) == (mean == min(means.values()))
    cells = rows(_table(page, "table-cells"))
    assert len(cells) == 20
    for selection, peft, seed, val, test, *_ in cells:
        expected = rmse(selection, peft.lower(), int(seed))
        assert (val, test) == (f"{expected - 0.05:.4f}", f"{expected:.4f}")


def test_an_interval_is_that_of_the_verdict_where_there_is_one(page: Element) -> None:
    grid = {row[0]: row[1:] for row in rows(_table(page, "table-grid"))}
    deltas = {
        (
            name,
            peft,
        ): f"{np.mean([rmse(name, peft, i) - rmse('none', peft, i) for i in (0, 1)]):+.3f}"
        for name in ("tsds:top=6", "random:k=6")
        for peft in METHODS
    }
    assert (
        f"{deltas['tsds:top=6', 'lora']} [-0.020, -0.004]".replace("-", MINUS)
        in (grid["tsds:top=6"][0])
    )
    assert (
        f"{deltas['tsds:top=6', 'bitfit']} [+0.010, +0.040]".replace("-", MINUS)
        in (grid["tsds:top=6"][1])
    )
    # No verdict: no interval.
    assert grid["random:k=6 (control)"][0].endswith(
        deltas["random:k=6", "lora"].replace("-", MINUS)
    )


def test_two_pretrained_models_are_judged_where_nothing_was_added(
    tmp_path: Path, settings: CompareSettings
) -> None:
    of_model = verdict(
        "none", "lora", model="path/to/adapted", against="none (small)", delta=-0.05, low=-0.07,
        high=-0.03, p=0.001, p_holm=0.001, n_tests=1,
    )  # fmt: skip
    cells = [
        replace(cell("none", "lora", seed), model=model)
        for seed in (0, 1)
        for model in ("small", "path/to/adapted")
    ]
    folder = result_in(
        tmp_path / "r", settings, cells=cells, verdicts=[of_model], summary=summarise(cells)
    )
    text = parse(make_report(folder)).one("main").text
    assert "Against none (small): better (lora on adapted)" in text
    assert re.sub(r"(?<![\w.])-(?=\d)", MINUS, of_model.numbers()) in text
    shown = "Shown to lower the error against the first model, small: none (adapted) / lora."
    assert shown in text
    assert "Nothing was added" not in text
    page = parse(make_report(folder)).one("body").text
    assert "Does extra data help?" not in page
    assert "Which pretrained model predicts " in page
    assert "How well do small and adapted, each fine-tuned with LoRA on " in page


def test_the_mark_of_the_lowest_is_among_rows_of_as_many_cells(
    tmp_path: Path, settings: CompareSettings
) -> None:
    """The easiest split is no merit of the random control that is on that one alone."""
    cells = []
    for split, (level, name) in enumerate(((0.3, "random:k=6"), (0.9, "random:k=9"))):
        for selection, shift in (("none", 0.02), ("all", 0.04), ("tsds:top=6", 0.0), (name, 0.1)):
            one = cell(selection if selection != "random:k=9" else "random:k=6", "lora", 0)
            cells.append(replace(one, selection=selection, split=split, test_rmse=level + shift))
    folder = result_in(tmp_path / "r", settings, cells=cells, summary=summarise(cells))
    page = parse(make_report(folder))
    lines = {row[0]: row for row in rows(_table(page, "table-summary"))}
    assert [name for name, row in lines.items() if "lowest" in row[6]] == ["tsds:top=6"]
    assert "random:k=6 (on 1 of 2 splits)" in lines
    (alt,) = [p.attributes["alt"] for p in page.all("img") if "Dot plot" in p.attributes["alt"]]
    assert "random:k=6 (on 1 of 2 splits) 0.400" in alt
    assert "tsds:top=6 0.600" in alt


def test_a_selection_stays_one_row_where_a_method_lost_a_split(
    tmp_path: Path, settings: CompareSettings
) -> None:
    cells = [
        replace(cell(selection, peft, 0), split=split)
        for split in (0, 1)
        for peft in METHODS
        for selection in ("none", "tsds:top=6")
    ]
    lost = {"status": "failed", "error": "it broke", "test_rmse": None, "val_rmse": None}
    cells[-1] = replace(cells[-1], **lost)
    folder = result_in(tmp_path / "r", settings, cells=cells, summary=summarise(cells))
    page = parse(make_report(folder))
    grid = rows(_table(page, "table-grid"))
    assert [row[0].removesuffix(" (control)") for row in grid] == ["none", "tsds:top=6"]
    assert "not planned" not in page.one("main").text
    lines = [row[0] for row in rows(_table(page, "table-summary"))]
    assert lines[-1] == "tsds:top=6 (on 1 of 2 splits)"


def test_the_verdicts_are_there_word_for_word_and_in_short(page: Element) -> None:
    text = page.one("main").text
    for each in VERDICTS:
        assert re.sub(r"(?<![\w.])-(?=\d)", MINUS, each.numbers()) in text
    assert "Against none: better (lora), worse (bitfit)" in text
    assert "Against none: no difference shown (lora)" in text
    assert "Against none: cannot be told from one seed (lora)" in text
    assert "no difference shown; 0.031 would have been seen four times in five" in text
    assert "better than none" in text
    lowered = "Shown to lower the error against none: tsds:top=6 / lora."
    assert f"{lowered} Shown to raise it: tsds:top=6 / bitfit." in text
    assert "family of 3 distinct tests" in text


def test_where_nothing_was_tested_the_page_says_so(made: Path) -> None:
    result = json.loads((made / "result.json").read_text())
    material = replace(read_material(made), verdicts=[])
    text = parse(render(build_report(material))).one("main").text
    assert "This run cannot tell what helps" in text
    assert "Holm" not in text
    for row in result["summary"]:
        if row["delta_none"]:
            assert f"{row['selection']} / {row['peft']}: {row['delta_none']:+.3f}" in text
    untested = [replace(VERDICTS[0], low=None, high=None, p=None, p_holm=None, n_tests=None)]
    text = parse(render(build_report(replace(material, verdicts=untested)))).one("main").text
    assert "below 0 is better." in text
    assert "family of" not in text


def test_alternative_texts_say_the_numbers(page: Element, made: Path) -> None:
    alts = [picture.attributes["alt"] or "" for picture in page.all("img")]
    for selection in SELECTIONS:
        for peft in METHODS:
            mean = np.mean([rmse(selection, peft, i) for i in (0, 1)])
            assert f"{selection} {mean:.3f}" in alts[0]
    assert "lora 10 s (10 to 11)" in alts[2]
    assert "RMSE 0.600, MAE 0.500" in alts[3]
    # The parabola of the made-up curve: least where five are kept.
    assert "0.661 with all 24 points, 0.325 with none, lowest 0.3 with 5" in alts[4]
    table = pd.read_csv(made / "values" / "tsds" / "values.csv")
    assert f"from {table['value'].max():+.3g} to {MINUS}{-table['value'].min():.3g}" in alts[5]
    assert f"{int((table['value'] > 0).sum())} of them above 0, 5 kept" in alts[5]


def test_the_molecules_are_those_at_either_end(page: Element, made: Path) -> None:
    table = pd.read_csv(made / "values" / "influence" / "values.csv").sort_values("rank")
    lists = [ul for ul in page.all("ul") if ul.attributes.get("class") == "molecules"]
    assert len(lists) == 4
    for shown, part in ((lists[2], table.head(6)), (lists[3], table.tail(6)[::-1])):
        cards = shown.all("li")
        assert [card.one("code").text for card in cards] == part["smiles"].tolist()
        for card, point in zip(cards, part.to_dict("records"), strict=True):
            assert f"rank {point['rank']} of 24" in card.text
            assert f"{point['value']:#.3g} ± 0.010".replace("-", MINUS) in card.text
            assert f"data row {point['row']}" in card.text
            assert ("the removal curve keeps it" in card.text) == point["selected"]
            assert ("the removal curve drops it" in card.text) != point["selected"]
            assert ("chosen by influence:top=6" in card.text) == (point["rank"] <= 6)
            source = card.one("img").attributes["src"] or ""
            svg = base64.b64decode(source.removeprefix("data:image/svg+xml;base64,")).decode()
            assert svg.count("<path") > 3


def test_what_a_file_is_called_stays_text(tmp_path: Path, world: World) -> None:
    hostile = 'x"><script>alert(1)<b onclick=y>&amp;.csv'
    primary = world.primary.rename(world.folder / hostile)
    data = {"dataset": str(primary), "secondary": str(world.secondary)}
    settings = world.settings(data=data, peft=METHODS)
    error = "<img src=x onerror=alert(1)> in /home/someone/secret/file.csv: no"
    cells = [cell(s, "lora", 0) for s in SELECTIONS]
    cells[1] = replace(cells[1], status="failed", error=error, test_rmse=None, val_rmse=None)
    text = make_report(result_in(tmp_path / "hostile", settings, cells=cells))
    page = parse(text)
    assert not page.all("script")
    assert {e.tag for e in page.all("b")} == {"b"}
    assert not [
        e for e in page.everything() if "onclick" in e.attributes or "onerror" in e.attributes
    ]
    assert hostile in page.one("title").text
    assert page.by_id("failed").above is not None
    assert "<img src=x onerror=alert(1)> in file.csv: no" in page.one("main").text
    assert "/home/" not in text
    assert str(world.folder) not in text
    line = {row[0]: row for row in rows(_table(page, "table-summary"))}["all"]
    assert line[6] == "failed"


def test_the_same_files_give_the_same_bytes_wherever_they_are(folder: Path, tmp_path: Path) -> None:
    first = write_report(folder).read_bytes()
    figures = folder.rename(tmp_path / "moved") / "figures"
    elsewhere = figures.rename(tmp_path / "pictures")
    assert make_report(tmp_path / "moved", elsewhere).encode() == first


@pytest.mark.parametrize(
    "name",
    [RECORD, "result.json", "settings.json", "values/tsds/values.csv", "figures/values_tsds.png",
     "values/influence/removal_curve.csv"],
)  # fmt: skip
def test_a_file_that_is_gone_or_broken_is_one_line(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(TrackingError, match=Path(name).name):
        read_material(folder)
    if name.endswith(".json"):
        (folder / name).write_text("{")
        with pytest.raises(TrackingError, match="cannot be read"):
            read_material(folder)


def test_what_another_version_wrote_is_one_line(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    del result["summary"][0]["selection"]
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(TrackingError, match="another version of lipo"):
        read_material(folder)
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(TrackingError, match="format 99"):
        read_material(folder)


@pytest.mark.parametrize(
    ("scale", "decimals"), [(0.01, 5), (0.1, 4), (1.0, 3), (10.0, 3), (100.0, 1), (1e4, 0)]
)
def test_errors_of_any_unit_show_their_thousandths(made: Path, scale: float, decimals: int) -> None:
    material = read_material(made)
    scaled = [
        replace(row, test_rmse=None if row.test_rmse is None else scale * row.test_rmse)
        for row in material.summary
    ]
    assert replace(material, summary=scaled).decimals == decimals


def test_every_setting_is_there_and_says_whether_it_was_changed(
    page: Element, settings: CompareSettings
) -> None:
    shown: dict[str, tuple[str, str]] = {}
    for table in page.all("table"):
        if (table.one("caption").id or "").startswith("table-settings"):
            shown |= {row[0]: (row[1], row[2]) for row in rows(table)}
    assert set(shown) == set(settings.flat())
    default = CompareSettings().flat()
    for name, value in settings.flat().items():
        assert shown[name][1] == ("default" if default[name] == value else "changed")
    text = page.one("main").text
    for peft in METHODS:
        assert f"learning_rate {DEFAULT_LEARNING_RATE[peft]}" in text
    assert shown["training.epochs"] == ("3", "changed")
    assert shown["data.dataset"] == ("primary.csv", "changed")


def test_without_a_secondary_set_there_is_a_page_too(tmp_path: Path, world: World) -> None:
    data = {"dataset": str(world.primary), "secondary": None}
    settings = world.settings(data=data, selections=("none",), peft=METHODS)
    prepared = prepare(settings.data)
    cells = [cell("none", peft, 0) for peft in METHODS]
    comparison = Comparison(prepared, cells, summarise(cells), [], [], {}, run_id="r")
    folder = tmp_path / "alone"
    paths = write_result(comparison, settings, folder)
    figures = [path for path in paths if path.suffix == ".png"]
    write_record(folder, comparison, settings, None, {}, "lipo compare -s none", figures)
    page = parse(make_report(folder))
    assert "How well does" in page.one("header").text
    assert "nothing to compare it with" in page.one("main").text
    assert not [e for e in page.everything() if e.id in ("molecules", "overlaps")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_have_contrast(scheme: str) -> None:
    style = (TEMPLATES / "report.css").read_text()
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in
             re.findall(r":root \{(.*?)\}", style, re.DOTALL)]  # fmt: skip
    colours = found[0] if scheme == "light" else found[1]
    assert colours.keys() == found[0].keys()
    pairs = [(ink, paper) for ink in ("ink", "quiet", "accent") for paper in ("page", "panel")]
    for ink, paper in [*pairs, ("warn-ink", "warn")]:
        assert _contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)


def _contrast(first: str, second: str) -> float:
    """WCAG 2.2: (L1 + 0.05) / (L2 + 0.05) of relative luminances."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_the_contrast_of_black_on_white_is_21() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_the_template_is_in_the_wheel() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = ROOT / "lipo_cli"
    shipped = {p for pattern in declared["package-data"]["lipo_cli"] for p in package.glob(pattern)}
    assert set(TEMPLATES.iterdir()) <= shipped


def _table(page: Element, name: str) -> Element:
    (found,) = [t for t in page.all("table") if t.one("caption").id == name]
    return found


def test_a_page_of_several_splits_names_them_and_what_each_was_tuned_to(
    settings: CompareSettings, tmp_path: Path
) -> None:
    split = [
        replace(cell(name, "lora", 0), split=seed) for seed in (3, 4) for name in ("none", "all")
    ]
    rates = {3: 0.0123, 4: 0.0456}
    tunings = Tunings(
        {
            ("lora", None, seed): Tuned(
                Cell(Choice("none", Selection("none"), "control"), "lora", 0, split=seed),
                (TrialResult(0, "complete", {"learning_rate": rate}, 0.6, {}, 1.0),),
                {},
                "run-of-the-search",
            )
            for seed, rate in rates.items()
        }
    )
    folder = result_in(tmp_path / "splits", settings, cells=split, tunings=tunings)
    page = parse(make_report(folder))
    told = [row[:4] for row in rows(_table(page, "table-cells"))]
    assert told == [[c.selection, "LoRA", str(c.split), "0"] for c in split]
    text = page.one("main").text
    for seed, rate in rates.items():
        assert f"LoRA, split {seed}" in text
        assert f"learning_rate {rate}" in text
    assert "Intervals are over 2 splits" in text
    alts = [picture.attributes["alt"] or "" for picture in page.all("img")]
    assert not [alt for alt in alts if "not described" in alt]
    assert any("split 4: lowest validation RMSE 0.6000" in alt for alt in alts)


def test_what_kept_nothing_is_said_so_and_keeps_its_other_verdicts(
    settings: CompareSettings, tmp_path: Path
) -> None:
    nothing = [replace(cell("tsds:top=6", "lora", i), n_selected=0) for i in (0, 1)]
    others = [cell(name, "lora", i) for i in (0, 1) for name in ("none", "all")]
    folder = result_in(tmp_path / "nothing", settings, cells=[*others, *nothing])
    text = parse(make_report(folder)).one("main").text
    assert "It chose no point: its cells are the control none over again" in text
    assert VERDICTS[1].numbers().replace(" -", f" {MINUS}").replace("[-", f"[{MINUS}") in text


def test_what_was_tested_is_said_where_there_is_no_control(made: Path) -> None:
    """A top against a bottom is a test, though nothing was set beside `none`."""
    top = verdict(
        "tsds:top=6", "lora", against="tsds:bottom=6", delta=-0.1, p=1e-4, p_holm=1e-4, n_tests=1
    )
    material = replace(read_material(made), verdicts=[top])
    text = parse(render(build_report(material))).one("main").text
    assert "Nothing was tested against none." in text
    assert "against another selection: tsds:top=6 / lora against tsds:bottom=6. " in text
    assert "cannot tell what helps" not in text


def test_what_a_budget_left_out_stands_on_the_page(made: Path) -> None:
    left = replace(read_material(made), left_out=["seed 2", "ia3 with seed 1"])
    text = parse(render(build_report(left))).one("main").text
    assert "A time budget left out: seed 2; ia3 with seed 1." in text


def test_why_there_is_no_champion_is_what_the_record_says(made: Path) -> None:
    material = read_material(made)
    gone = replace(material, record={**material.record, "best": None}, not_offered="no luck")
    text = parse(render(build_report(gone))).one("main").text
    assert "no cell: no luck" in text
    failed = [replace(c, status="failed", error="x") for c in material.cells]
    old = replace(gone, not_offered=None, cells=failed)
    text = parse(render(build_report(old))).one("main").text
    assert "no cell: none finished" in text


def test_a_label_of_any_size_is_legible(made: Path) -> None:
    material = read_material(made)
    small = {m: t.assign(label=t["label"] * 1e-6) for m, t in material.values.items()}
    text = parse(render(build_report(replace(material, values=small)))).one("main").text
    first = small["tsds"].sort_values("value")["label"].iloc[-1]
    assert f"{first:.4g}".replace("-", MINUS, 1 if first < 0 else 0) in text.replace(
        f"e{MINUS}", "e-"
    )


def test_the_champion_stands_beside_the_control(made: Path) -> None:
    """Validation chooses, and may choose what test likes less."""
    material = read_material(made)
    assert "Beside the control" not in parse(render(build_report(material))).one("main").text
    best = {**material.record["best"], "selection": "tsds:top=6"}
    other = replace(material, record={**material.record, "best": best})
    text = parse(render(build_report(other))).one("main").text
    assert "test RMSE of its row 0.628, of none with the same method 0.602: +0.026" in text
    failed = [replace(r, test_rmse=None) if r.selection == "none" else r for r in other.summary]
    text = parse(render(build_report(replace(other, summary=failed)))).one("main").text
    assert "the control none with the same method did not finish" in text
