"""What a user calls a model, and what is said where nothing bears that name."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from lipo_cli.errors import ModelError
from lipo_cli.tracking.registry import promote_champion
from lipo_cli.tracking.runs import start_run
from lipo_cli.tracking.store import Store
from lipo_cli.tracking.versions import (
    Wanted,
    _model_names,
    is_registered,
    list_versions,
    parse_name,
    regressor_folder,
    resolve,
    show_version,
    what_there_is,
)

NAME = "lipophilicity"


@pytest.fixture
def two_versions(store: Store, stand_in: Path) -> Store:
    for rmse in (0.7, 0.6):
        with start_run(store, "lipo", "x") as run:
            uri = run.model(stand_in, ["CCO"])
        promote_champion(store, run.run_id, uri, NAME, metric_value=rmse, scope="s")
    return store


def test_a_name_with_a_quote_hides_no_other(two_versions: Store, stand_in: Path) -> None:
    with start_run(two_versions, "lipo", "x") as run:
        uri = run.model(stand_in, ["CCO"])
    for _ in range(2):
        promote_champion(two_versions, run.run_id, uri, "it's", metric_value=0.5, scope="s")
    known = [(v.model, v.version) for v in list_versions(two_versions)]
    assert known == [("it's", "1"), (NAME, "2"), (NAME, "1")]


@pytest.mark.parametrize("scheme", ["", "models:/"])
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("logd/3", Wanted("logd", version="3")),
        ("logd@best", Wanted("logd", alias="best")),
        ("logd", Wanted("logd")),
        ("9", Wanted("9")),
    ],
)
def test_names_are_read_with_and_without_the_scheme(scheme: str, text: str, wanted: Wanted) -> None:
    assert parse_name(scheme + text) == wanted


def test_a_logged_model_is_told_from_a_registered_one() -> None:
    assert not is_registered("models:/m-123")
    assert is_registered("models:/m-123/1")
    assert is_registered("models:/lipophilicity")


def test_a_bare_name_is_its_champion(two_versions: Store) -> None:
    for text in (NAME, f"models:/{NAME}", f"{NAME}@champion", f"{NAME}/2"):
        assert str(resolve(two_versions, text).version) == "2"
    assert show_version(two_versions, f"{NAME}/1").uri == f"models:/{NAME}/1"
    assert regressor_folder(two_versions, NAME) == regressor_folder(two_versions, f"{NAME}/2")


def test_what_there_is_and_the_form_are_said(two_versions: Store) -> None:
    for text, reason in (
        (f"models:/{NAME}/3", "has no version '3'"),
        (f"{NAME}/new", "has no version 'new'"),
        (f"{NAME}@best", "has no alias 'best'"),
        (f"{NAME}@1", f"(version 1 is models:/{NAME}/1; "),
        ("logd/1", "no such registered model"),
        ("9", "no such registered model"),
    ):
        with pytest.raises(ModelError) as caught:
            show_version(two_versions, text)
        line = str(caught.value)
        assert reason in line
        assert f"{NAME} has versions 2 (@champion), 1" in line
        assert "models:/NAME/VERSION or models:/NAME@ALIAS" in line


def test_an_empty_registry_says_who_fills_it(store: Store) -> None:
    with pytest.raises(ModelError, match=r"none is registered yet: `lipo compare`"):
        show_version(store, "lipophilicity")


def test_many_versions_are_not_all_listed(two_versions: Store) -> None:
    many = list_versions(two_versions) * 6
    assert what_there_is(many).endswith(" and 4 older")


def test_every_model_is_listed_however_many_there_are(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = store.client()
    for number in range(5):
        client.create_registered_model(f"m{number}")
    whole = MlflowClient.search_registered_models
    monkeypatch.setattr(
        MlflowClient,
        "search_registered_models",
        lambda self, **more: whole(self, max_results=2, **more),
    )
    assert _model_names(client) == [f"m{number}" for number in range(5)]
