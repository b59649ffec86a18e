"""The versions of the registered models: found by what a user calls them, listed, and fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lipo_cli.errors import ModelError
from lipo_cli.tracking.model_logging import ARTIFACT
from lipo_cli.tracking.store import Store, first_line, pages, tracking_errors

CHAMPION = "champion"
SCHEME = "models:/"
FORMS = f"{SCHEME}NAME/VERSION or {SCHEME}NAME@ALIAS"

_LOGGED = "m-"
"""What the ids of MLflow's logged models, which need not be registered, begin with."""
_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""A model without the alias, and a version that is no number, are reported as wrong parameters."""
_SHOWN = 8


class Wanted(NamedTuple):
    """What a user's text names: a version, an alias, or with neither the champion."""

    name: str
    version: str | None = None
    alias: str | None = None


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

    @property
    def uri(self) -> str:
        """The address that names this version for good; an alias may move on."""
        return f"{SCHEME}{self.model}/{self.version}"


def parse_name(text: str) -> Wanted:
    """Reads `NAME`, `NAME/VERSION` or `NAME@ALIAS`, with or without `models:/` before it."""
    rest = text.removeprefix(SCHEME)
    name, at, alias = rest.partition("@")
    if at:
        return Wanted(name, alias=alias)
    name, slash, version = rest.rpartition("/")
    return Wanted(name, version=version) if slash else Wanted(rest)


def list_versions(store: Store, name: str | None = None) -> list[RegisteredVersion]:
    """Returns the versions of one registered model or of all, the newest first.

    Raises:
        TrackingError: `name` is given and no such model is registered.
    """
    client = store.client()
    with tracking_errors(name or store.uri):
        names = [name] if name else _model_names(client)
        found: list[RegisteredVersion] = []
        for each in names:
            aliases = _aliases(client, each)
            versions = client.search_model_versions(named(each))
            found.extend(_registered(v, aliases.get(str(v.version), ())) for v in versions)
    return sorted(found, key=lambda v: (v.model, -int(v.version)))


def _model_names(client: MlflowClient) -> list[str]:
    return [model.name for page in pages(client.search_registered_models) for model in page]


def named(model: str) -> str:
    """Returns MLflow's filter for a model's versions; its name may hold one kind of quote."""
    quote = '"' if "'" in model else "'"
    return f"name = {quote}{model}{quote}"


def show_version(store: Store, uri: str) -> RegisteredVersion:
    """Returns the version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` names.

    Raises:
        ModelError: nothing bears that name.
    """
    version = resolve(store, uri)
    with tracking_errors(uri):
        aliases = _aliases(store.client(), version.name)
    return _registered(version, aliases.get(str(version.version), ()))


def resolve(store: Store, uri: str) -> ModelVersion:
    """Returns MLflow's record of the version that a text names (see `parse_name`).

    Raises:
        ModelError: nothing bears that name; the hint says what there is.
        TrackingError: the store refuses.
    """
    wanted = parse_name(uri)
    client = store.client()
    with tracking_errors(uri):
        try:
            if wanted.version is not None:
                return client.get_model_version(wanted.name, wanted.version)
            return client.get_model_version_by_alias(wanted.name, wanted.alias or CHAMPION)
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
            raise _not_there(store, wanted, uri) from error


def is_registered(uri: str) -> bool:
    """Tells the address of a registered version from that of a logged model, `models:/m-...`."""
    wanted = parse_name(uri)
    bare = wanted.version is None and wanted.alias is None
    return not (bare and wanted.name.startswith(_LOGGED))


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


def what_there_is(versions: Iterable[RegisteredVersion]) -> str:
    """Lists registered models and their versions, for a hint."""
    by_model: dict[str, list[RegisteredVersion]] = {}
    for version in versions:
        by_model.setdefault(version.model, []).append(version)
    if not by_model:
        return "none is registered yet: `lipo compare` registers its best"
    return "; ".join(f"{name} has {_numbers(found)}" for name, found in by_model.items())


def _numbers(versions: list[RegisteredVersion]) -> str:
    """Lists version numbers, the newest first, with their aliases."""
    named = [f"{v.version}{''.join(f' (@{alias})' for alias in v.aliases)}" for v in versions]
    head = "version" if len(versions) == 1 else "versions"
    more = f" and {len(named) - _SHOWN} older" if len(named) > _SHOWN else ""
    return f"{head} {', '.join(named[:_SHOWN])}{more}"


def _not_there(store: Store, wanted: Wanted, uri: str) -> ModelError:
    place = f"{uri} in {store.root or store.shown}"
    versions = list_versions(store)
    own = [version for version in versions if version.model == wanted.name]
    if own:
        missing = (
            f"version {wanted.version!r}"
            if wanted.version is not None
            else f"alias {wanted.alias or CHAMPION!r}"
        )
        hint = f"{what_there_is(own)}; the form is {FORMS}"
        if wanted.alias in {version.version for version in own}:
            hint = f"version {wanted.alias} is {SCHEME}{wanted.name}/{wanted.alias}; {hint}"
        return ModelError(f"{wanted.name} has no {missing}", where=place, hint=hint)
    return ModelError(
        "no such registered model",
        where=place,
        hint=f"the form is {FORMS}; {what_there_is(versions)}; `lipo model list` shows more",
    )


def _location(store: Store, uri: str) -> str:
    """Returns where a model's files are: MLflow would ask its global store, not this one."""
    client = store.client()
    if is_registered(uri):
        version = resolve(store, uri)
        return str(client.get_model_version_download_uri(version.name, version.version))
    try:
        return str(client.get_logged_model(parse_name(uri).name).artifact_location)
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
