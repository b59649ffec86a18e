"""The registered model and its champion: replaced only by a better one where the two compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lipo_cli.errors import ModelError, TrackingError
from lipo_cli.tracking.model_logging import ARTIFACT
from lipo_cli.tracking.signals import deferred_signals
from lipo_cli.tracking.store import Store, first_line, tracking_errors

CHAMPION = "champion"
METRIC_TAG = "val_rmse"
SCOPE_TAG = "scope"
DEMO = "demo"

Verdict = Literal["wins", "loses", "other scope"]

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


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model.

    Attributes:
        model: The registered model's name.
        version: Its number.
        run_id: The run that made it.
        aliases: The names that point at it.
        tags: Its evidence.
        description: What it is, for people.
        created: Milliseconds since the epoch.
    """

    model: str
    version: str
    run_id: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    description: str
    created: int


def promote_champion(
    store: Store,
    run_id: str,
    model_uri: str,
    name: str,
    *,
    metric_value: float,
    scope: str,
    evidence: Mapping[str, object] | None = None,
) -> Champion:
    """Registers a model as champion if it beats the present one.

    On the same scope only a lower validation RMSE wins; a tie keeps the title where it is, and a
    challenger that loses is not registered. On another scope the two numbers do not compare: the
    title stays, the challenger is registered without it, and `set_champion` can move it. A
    champion of the synthetic demo set yields to one of measured data.

    Args:
        store: The store.
        run_id: The run that made the challenger.
        model_uri: Its model, `models:/m-...`.
        name: The registered model's name.
        metric_value: Its validation RMSE, raw units.
        scope: What the number was measured on: the fingerprint of dataset and split.
        evidence: More tags for the version, for example selection, peft and seed.

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
        _ensure_model(client, name)
        tags = {METRIC_TAG: repr(float(metric_value)), SCOPE_TAG: scope} | {
            key: str(value) for key, value in (evidence or {}).items()
        }
        version = _version_of(store, name, run_id, model_uri, tags)
        if holder is not None and verdict == "other scope":
            advice = (
                f"registered as version {version}: `lipo model promote models:/{name}/{version}`"
            )
            return _stays(holder, f"{reason}; {advice}")
        client.set_registered_model_alias(name, CHAMPION, version)
    previous = str(holder.version) if holder is not None else None
    return Champion(name, version, run_id, True, reason, float(metric_value), previous)


def _stays(holder: ModelVersion, reason: str) -> Champion:
    return Champion(
        holder.name, str(holder.version), holder.run_id or "", False, reason, _rmse(holder.tags)
    )


def set_champion(store: Store, uri: str) -> RegisteredVersion:
    """Gives the title to `models:/NAME/VERSION`, because a person says so.

    Raises:
        ModelError: nothing bears that name.
    """
    client = store.client()
    with store.locked(), deferred_signals(), tracking_errors(uri):
        version = _resolve(client, store, uri)
        client.set_registered_model_alias(version.name, CHAMPION, version.version)
    return show_version(store, uri)


def list_versions(store: Store, name: str | None = None) -> list[RegisteredVersion]:
    """Returns the versions of one registered model or of all, the newest first.

    Raises:
        TrackingError: `name` is given and no such model is registered.
    """
    client = store.client()
    with tracking_errors(name or store.uri):
        names = [name] if name else [model.name for model in client.search_registered_models()]
        found: list[RegisteredVersion] = []
        for each in names:
            aliases = _aliases(client, each)
            versions = client.search_model_versions(f"name = '{each}'")
            found.extend(_registered(v, aliases.get(str(v.version), ())) for v in versions)
    return sorted(found, key=lambda v: (v.model, -int(v.version)))


def show_version(store: Store, uri: str) -> RegisteredVersion:
    """Returns the version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` names.

    Raises:
        ModelError: nothing bears that name.
    """
    client = store.client()
    version = _resolve(client, store, uri)
    with tracking_errors(uri):
        aliases = _aliases(client, version.name)
    return _registered(version, aliases.get(str(version.version), ()))


def regressor_folder(store: Store, uri: str) -> Path:
    """Returns the saved regressor behind `models:/...` as a folder on this machine.

    Args:
        store: The store.
        uri: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a logged model `models:/m-...`.

    Raises:
        ModelError: nothing bears that name, or it is not a model of ours.
    """
    location = _location(store, uri)
    try:
        folder = Path(download_artifacts(artifact_uri=location, tracking_uri=store.uri))
    except (MlflowException, OSError) as error:
        raise ModelError(f"cannot fetch the model: {first_line(error)}", where=uri) from error
    inner = folder / "artifacts" / ARTIFACT
    if not (inner / "manifest.json").is_file():
        raise ModelError("not a model that lipo has saved", where=uri)
    return inner


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
        return "loses", f"{title} is this very run"
    old = _rmse(holder.tags)
    if SCOPE_TAG not in holder.tags or not math.isfinite(old):
        return "wins", f"{title} bears no validation RMSE and scope to compare with"
    if holder.tags[SCOPE_TAG] != scope:
        if holder.tags.get("dataset") == DEMO and evidence.get("dataset") != DEMO:
            return "wins", f"{title} was fine-tuned on the synthetic demo set"
        return "other scope", f"{title} was measured on another dataset or split"
    if challenger < old:
        return "wins", f"validation RMSE {challenger:.4f} is below {old:.4f} of {title}"
    return "loses", f"validation RMSE {challenger:.4f} is not below {old:.4f} of {title}"


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


def _version_of(
    store: Store, name: str, run_id: str, model_uri: str, tags: Mapping[str, str]
) -> str:
    """Registers the challenger, or takes the version that it was registered as before."""
    client = store.client()
    logged = client.get_logged_model(model_uri.removeprefix("models:/"))
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.run_id == run_id and known.source in (model_uri, logged.artifact_location):
            for key, value in tags.items():
                client.set_model_version_tag(name, known.version, key, value)
            return str(known.version)
    made = client.create_model_version(
        name,
        # A local registry would look the address up in MLflow's global store, not in this one.
        source=model_uri if store.root is None else logged.artifact_location,
        run_id=run_id,
        tags=dict(tags),
        description=", ".join(f"{key} {value}" for key, value in tags.items()),
        model_id=logged.model_id,
    )
    return str(made.version)


def _resolve(client: MlflowClient, store: Store, uri: str) -> ModelVersion:
    name, at, alias = uri.removeprefix("models:/").partition("@")
    try:
        if at:
            return client.get_model_version_by_alias(name, alias)
        name, _, version = name.rpartition("/")
        return client.get_model_version(name, version)
    except MlflowException as error:
        raise ModelError(
            "no such registered model",
            where=f"{uri} in {store.root or store.uri}",
            hint="`lipo model list` shows what there is; `lipo compare` makes one",
        ) from error


def _location(store: Store, uri: str) -> str:
    """Returns where a model's files are: MLflow would ask its global store, not this one."""
    client = store.client()
    rest = uri.removeprefix("models:/")
    if "@" in rest or "/" in rest:
        version = _resolve(client, store, uri)
        return str(client.get_model_version_download_uri(version.name, version.version))
    try:
        return str(client.get_logged_model(rest).artifact_location)
    except MlflowException as error:
        raise ModelError(first_line(error), where=uri) from error


def _aliases(client: MlflowClient, name: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for alias, version in sorted(client.get_registered_model(name).aliases.items()):
        found[str(version)] = (*found.get(str(version), ()), alias)
    return found


def _registered(version: ModelVersion, aliases: tuple[str, ...]) -> RegisteredVersion:
    return RegisteredVersion(
        model=version.name,
        version=str(version.version),
        run_id=version.run_id or "",
        aliases=aliases,
        tags=dict(version.tags),
        description=version.description or "",
        created=int(version.creation_timestamp),
    )
