"""The registered model and its champion: replaced only by a better one where the two compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lipo_cli.errors import ModelError, TrackingError
from lipo_cli.tracking.signals import deferred_signals
from lipo_cli.tracking.store import Store, tracking_errors
from lipo_cli.tracking.versions import (
    CHAMPION,
    RegisteredVersion,
    list_versions,
    named,
    parse_name,
    resolve,
    show_version,
    what_there_is,
)

METRIC_TAG = "val_rmse"
SCOPE_TAG = "scope"
TEST_TAGS = ("test_rmse", "test_mae")
"""Metrics of the run that a version bears too: a run may be deleted, its model stays."""
COMPARISON_TAG = "comparison"
AUDIT_TAGS = ("audit", "audit_line")
"""Tags of the comparison's run: the level of the secondary set's audit, and its summary."""
CELLS_TAG = "n_cells"
"""Finished cells of the comparison that speaks for a version."""
DEMO = "demo"

Verdict = Literal["wins", "loses", "the same", "other scope"]

_ABOUT = (
    "Fine-tuned by lipo. The alias `champion` names the version with the lowest validation RMSE on "
    "its dataset and split; the test split has no say in it."
)


@dataclass(frozen=True)
class Champion:
    """Who holds the title after a promotion, and why.

    Attributes:
        model: The registered model's name.
        version: The champion's version.
        run_id: The run that made it.
        replaced: Whether the title went to the challenger.
        reason: What decided it, for people.
        val_rmse: The champion's validation RMSE, raw units.
        previous_version: The version that lost the title; None when nobody did.
    """

    model: str
    version: str
    run_id: str
    replaced: bool
    reason: str
    val_rmse: float
    previous_version: str | None = None


def promote_champion(
    store: Store,
    run_id: str,
    model_uri: str,
    name: str,
    *,
    metric_value: float,
    scope: str,
    evidence: Mapping[str, object] | None = None,
    comparison_run_id: str | None = None,
) -> Champion:
    """Registers a model as champion if it beats the present one.

    On the same scope only a lower validation RMSE wins; a tie keeps the title where it is, and a
    challenger that loses is not registered. On another scope the two numbers do not compare: the
    title stays, the challenger is registered without it, and `set_champion` can move it. A
    champion of the synthetic demo set yields to one of measured data. A champion that is offered
    again by a comparison of as many cells or more takes its evidence from there.

    Args:
        store: The store.
        run_id: The run that made the challenger.
        model_uri: Its model, `models:/m-...`.
        name: The registered model's name.
        metric_value: Its validation RMSE, raw units.
        scope: What the number was measured on: the fingerprint of dataset and split.
        evidence: More tags for the version, for example selection, peft and seed.
        comparison_run_id: The comparison that offers it, whose record holds the controls.

    Raises:
        TrackingError: the number is not finite, or the store refuses.
    """
    if not math.isfinite(metric_value):
        raise TrackingError(
            f"a validation RMSE of {metric_value} cannot be promoted", where=f"run {run_id}"
        )
    client = store.client()
    with store.locked(), deferred_signals(), tracking_errors(name):
        holder = _champion(client, name)
        verdict, reason = _judge(holder, run_id, metric_value, scope, dict(evidence or {}))
        if holder is not None and verdict == "loses":
            return _stays(holder, reason)
        tags = {METRIC_TAG: repr(float(metric_value)), SCOPE_TAG: scope} | {
            key: str(value) for key, value in (evidence or {}).items()
        }
        measured = _measured(client, run_id, comparison_run_id)
        if holder is not None and verdict == "the same":
            if _n_cells(tags) >= _n_cells(holder.tags):
                _speak_for(client, holder, tags, measured)
            return _stays(holder, reason)
        _ensure_model(client, name)
        version = _version_of(store, name, run_id, model_uri, tags, measured)
        if holder is not None and verdict == "other scope":
            advice = (
                f"registered as version {version}: `lipo model promote models:/{name}/{version}`"
            )
            return _stays(holder, f"{reason}; {advice}")
        client.set_registered_model_alias(name, CHAMPION, version)
    previous = str(holder.version) if holder is not None else None
    return Champion(name, version, run_id, True, reason, float(metric_value), previous)


def _n_cells(tags: Mapping[str, str]) -> int:
    """Returns how large the comparison was that speaks for a version; 0 where it is not known."""
    return int(tags.get(CELLS_TAG, 0))


def _stays(holder: ModelVersion, reason: str) -> Champion:
    return Champion(
        holder.name, str(holder.version), holder.run_id or "", False, reason, _rmse(holder.tags)
    )


def set_champion(store: Store, uri: str) -> RegisteredVersion:
    """Gives the title to `models:/NAME/VERSION`, because a person says so.

    Raises:
        ModelError: nothing bears that name, or it names no version.
    """
    wanted = parse_name(uri)
    if wanted.version is None and wanted.alias is None:
        versions = list_versions(store)
        known = [v for v in versions if v.model == wanted.name] or versions
        raise ModelError(
            "names no version",
            where=uri,
            hint=f"the form is models:/NAME/VERSION; {what_there_is(known)}",
        )
    client = store.client()
    with store.locked(), deferred_signals(), tracking_errors(uri):
        version = resolve(store, uri)
        client.set_registered_model_alias(version.name, CHAMPION, version.version)
    return show_version(store, uri)


def _judge(
    holder: ModelVersion | None,
    run_id: str,
    challenger: float,
    scope: str,
    evidence: Mapping[str, object],
) -> tuple[Verdict, str]:
    if holder is None:
        return "wins", "the first of its name"
    title = f"version {holder.version}"
    if holder.run_id == run_id:
        return "the same", f"{title} is this very run"
    old = _rmse(holder.tags)
    if SCOPE_TAG not in holder.tags or not math.isfinite(old):
        return "wins", f"{title} bears no validation RMSE and scope to compare with"
    if holder.tags[SCOPE_TAG] != scope:
        if holder.tags.get("dataset") == DEMO and evidence.get("dataset") != DEMO:
            return "wins", f"{title} was fine-tuned on the synthetic demo set"
        return "other scope", f"{title} was measured on another dataset or split"
    if challenger < old:
        return "wins", f"validation RMSE {challenger:.4g} is below {old:.4g} of {title}"
    return "loses", f"validation RMSE {challenger:.4g} is not below {old:.4g} of {title}"


def _rmse(tags: Mapping[str, str]) -> float:
    try:
        return float(tags[METRIC_TAG])
    except (KeyError, ValueError):
        return math.nan


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        # A model without the alias is reported as a wrong parameter.
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise


def _ensure_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name, description=_ABOUT)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _measured(client: MlflowClient, run_id: str, comparison_run_id: str | None) -> dict[str, str]:
    """Returns what the runs say that a version shall go on saying when they are gone."""
    metrics = client.get_run(run_id).data.metrics
    tags = {name: repr(metrics[name]) for name in TEST_TAGS if name in metrics}
    if comparison_run_id is not None:
        known = client.get_run(comparison_run_id).data.tags
        tags |= {name: known[name] for name in AUDIT_TAGS if name in known}
        tags[COMPARISON_TAG] = comparison_run_id
    return tags


def _version_of(
    store: Store,
    name: str,
    run_id: str,
    model_uri: str,
    tags: Mapping[str, str],
    measured: Mapping[str, str],
) -> str:
    """Registers the challenger, or takes the version that it was registered as before."""
    client = store.client()
    logged = client.get_logged_model(model_uri.removeprefix("models:/"))
    for known in client.search_model_versions(named(name)):
        if known.run_id == run_id and known.source in (model_uri, logged.artifact_location):
            _speak_for(client, known, tags, measured)
            return str(known.version)
    made = client.create_model_version(
        name,
        # A local registry would look the address up in MLflow's global store, not in this one.
        source=model_uri if store.root is None else logged.artifact_location,
        run_id=run_id,
        tags={**measured, **tags},
        description=_description(tags),
        model_id=logged.model_id,
    )
    return str(made.version)


def _speak_for(
    client: MlflowClient,
    version: ModelVersion,
    tags: Mapping[str, str],
    measured: Mapping[str, str],
) -> None:
    """Puts the evidence of a comparison in the place of an earlier one's."""
    for key, value in {**measured, **tags}.items():
        client.set_model_version_tag(version.name, version.version, key, value)
    if COMPARISON_TAG in measured:
        for key in AUDIT_TAGS:  # this comparison may have had no secondary set
            if key in version.tags and key not in measured:
                client.delete_model_version_tag(version.name, version.version, key)
    client.update_model_version(version.name, version.version, _description(tags))


def _description(tags: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in tags.items())
