"""The sentences of a report: the question, what to know first, the data, the settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from lipo_cli.comparison.constant import constant_line, hardly_beaten, warning_line
from lipo_cli.comparison.report_reading import FEWER_VIEWS, MORE_STEPS, equal_steps, n_splits
from lipo_cli.comparison.report_record import Material
from lipo_cli.comparison.summary import CONTROL
from lipo_cli.comparison.verdict import family_size
from lipo_cli.settings import Peft, ScoringMethod

PEFT_NAMES: dict[Peft, str] = {
    "full": "full fine-tuning",
    "bitfit": "BitFit",
    "lora": "LoRA",
    "ia3": "IA3",
}
METHOD_NAMES: dict[ScoringMethod, str] = {
    "tsds": "TS-DShapley",
    "influence": "influence functions",
    "knn": "KNN-Shapley",
    "loo": "leave-one-out",
    "uncertain": "the model's uncertainty",
}
_FOLDERS = re.compile(r"(?<![^\s'\"(=])~?/(?:[\w.+@-]+/)+(?=[\w.+@-])")
"""The folders before the last name of an absolute path."""


def title(material: Material) -> str:
    """Returns the heading of the page."""
    label = material.record["label"]
    if _adds(material):
        asked = f"Does extra data help? {label}"
    elif len({row.model for row in material.summary}) > 1:
        asked = f"Which pretrained model predicts {label} better?"
    else:
        asked = f"How well is {label} predicted?"
    return f"{asked}, {_dataset(material)}" if _adds(material) else f"{asked} {_dataset(material)}"


def question(material: Material) -> str:
    """Returns what was asked, in one sentence."""
    record, data = material.record, material.dataset
    methods = _listed([PEFT_NAMES[row] for row in dict.fromkeys(r.peft for r in material.summary)])
    models = list(dict.fromkeys(r.model for r in material.summary if r.model is not None))
    names = [PurePath(name).name for name in models]
    model = f"{_listed(names)}, each" if names else f"the pretrained model '{_base(material)}'"
    trained = f"{data['n_train']:,} training molecules of {_dataset(material)}"
    if record["secondary"] is None or not _adds(material):
        return (
            f"How well {'do' if len(names) > 1 else 'does'} {model} fine-tuned with {methods} on "
            f"{trained} predict {record['label']}?"
        )
    chosen = _listed([METHOD_NAMES[method] for method in material.values], "or")
    choice = f" all of it, or what {chosen} would choose," if chosen else ""
    return (
        f"Does adding {record['secondary']['file']} ({data['n_secondary']:,} usable molecules),"
        f"{choice} to the {trained} lower the error with which {model} fine-tuned with {methods} "
        f"predicts {record['label']}?"
    )


def _adds(material: Material) -> bool:
    """Tells whether anything is asked about more data, even if a selection chose none of it."""
    return any(row.selection != CONTROL for row in material.summary)


def warnings_of(material: Material) -> list[str]:
    """Returns what a reader must know before the verdict."""
    found = []
    if material.left_out:
        found.append(f"A time budget left out: {'; '.join(material.left_out)}.")
    audit = material.record["audit"]
    if audit is not None and audit["level"] == "fail":
        found.append(
            f"The secondary set failed its audit. {audit['verdict']} What follows does not say "
            "what it seems to say for any selection that takes from it."
        )
    elif audit is not None and audit["level"] == "warn":
        found.append(f"The audit of the secondary set: {audit['verdict']}")
    failed = sum(cell.status == "failed" for cell in material.cells)
    if failed:
        found.append(f"{failed} of {len(material.cells)} cells failed: see Failed cells.")
    if max((row.n_seeds for row in material.summary), default=0) == 1:
        found.append(
            "One seed: differences of some per cent of the RMSE are within the noise of "
            "retraining, and nothing below is a test."
        )
    if little := hardly_beaten(material.constants, material.cells):
        line = warning_line(little, len(material.constants), material.decimals)
        found.append(
            f"{line[0].upper()}{line[1:]}: what such models differ by says little; give --epochs "
            "more."
        )
    done = [cell for cell in material.cells if cell.status == "finished"]
    epochs = material.settings["training"]["epochs"]
    late = sum(cell.best_epoch == epochs for cell in done)
    if late and epochs > 1:
        more = FEWER_VIEWS if equal_steps(material) else MORE_STEPS
        added = any(cell.n_selected for cell in done)
        found.append(
            f"{late} of {len(done)} cells were best in their last epoch, still falling"
            f"{f': {more}' if added else ''}."
        )
    return found


def verdict_note(material: Material) -> str:
    """Returns how the differences are to be read."""
    unit = f"Differences of test RMSE ({material.record['label']}); below 0 is better."
    if not material.verdicts:
        return unit
    n_tested = family_size(material.verdicts)
    if not n_tested:
        return unit
    tested = [verdict for verdict in material.verdicts if verdict.p is not None]
    splits = max(verdict.n_splits for verdict in tested)
    counts = {verdict.n_seeds for verdict in tested}
    if splits > 1:  # there they count cells
        counts = {len({cell.seed for cell in material.cells if cell.status == "finished"})}
    seeds = f"{min(counts)} to " if len(counts) > 1 else ""
    # Records of before the family was kept have the number of verdicts alone.
    kind = "distinct test" if any(v.n_tests for v in material.verdicts) else "test"
    return (
        f"{unit} Paired over {seeds}{_counted(max(counts), 'seed')} and "
        f"{_counted(splits, 'split')}, with 95 % intervals where there are several; p-values are "
        "two-sided, and Holm's correction is over the whole family of "
        f"{_counted(n_tested, kind)}."
    )


def data_facts(material: Material) -> list[tuple[str, str]]:
    """Returns what went in, with counts."""
    record, data = material.record, material.dataset
    facts = [
        ("Dataset", f"{_dataset(material)}: {without_folders(data['description'])}"),
        ("Measured set", _table(record["primary"])),
        (
            f"Split {data['split']}" + (", the first" if n_splits(material) > 1 else ""),
            f"{data['n_train']:,} training, {data['n_val']:,} validation, {data['n_test']:,} test "
            "molecules",
        ),
    ]
    if record["secondary"] is not None:
        facts += [
            ("Secondary set", _table(record["secondary"])),
            ("Overlap", record["overlap"]),
            ("Left to choose from", f"{data['n_secondary']:,} molecules"),
        ]
    if material.constants:
        line = constant_line(material.constants, material.decimals)
        facts.append(("To be beaten", f"{line[0].upper()}{line[1:]}"))
    cut = max((cell.n_truncated or 0 for cell in material.cells), default=0)
    unknown = max((cell.n_unknown or 0 for cell in material.cells), default=0)
    longest = material.settings["training"]["max_length"]
    facts.append(
        (
            "Not read whole",
            f"{cut:,} training and validation molecules cut at {longest} tokens, {unknown:,} with "
            "tokens that the model does not know"
            if cut or unknown
            else "none",
        )
    )
    return facts


def setting_lines(settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns (group, dotted name, value) of every setting; files without their folders."""
    lines = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            lines += [(name, f"{name}.{key}", _shown(inner)) for key, inner in value.items()]
        else:
            lines.append(("comparison", name, _shown(value)))
    return lines


def came_to_facts(material: Material) -> list[tuple[str, str]]:
    """Returns by method what settings that are not set, or `auto`, or were tuned, came to."""
    facts = []
    for found in material.record["came_to"]:
        model, split = found["model"], found["split"]
        name = PEFT_NAMES[found["peft"]]
        name += f" ({bare(model)})" if model is not None else ""
        name += f", split {split}" if split is not None else ""
        values = [f"{setting} {_shown(value)}" for setting, value in found["values"].items()]
        facts += [(name, "; ".join(values))] if values else []
    return facts


def bare(value: str) -> str:
    """Returns an absolute path without its folders, and any other value as it is."""
    return PurePath(value).name if value.startswith(("/", "~/")) else value


def without_folders(text: str) -> str:
    """Returns a text with absolute paths cut down to their last name: a report may be sent on."""
    return _FOLDERS.sub("", text)


def _dataset(material: Material) -> str:
    return PurePath(str(material.dataset["name"])).name


def _base(material: Material) -> str:
    return PurePath(str(material.settings["training"]["model"])).name


def _table(facts: Mapping[str, Any]) -> str:
    line = f"{facts['file']}, {facts['n_molecules']:,} molecules of {facts['n_rows_read']:,} rows"
    if facts["n_bad_rows"]:
        line += f", {facts['n_bad_rows']:,} unusable rows left out"
    if facts["n_merged_rows"]:
        line += f", {facts['n_merged_rows']:,} merged into others of the same molecule"
    return f"{line}; label column {facts['label_column']}; SHA-256 {facts['sha256'][:16]}"


def _shown(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(item) for item in value) or "not set"
    return bare(str(value))


def _counted(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def _listed(names: list[str], last: str = "and") -> str:
    return (
        f" {last} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
    )
