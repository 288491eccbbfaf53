from __future__ import annotations

import json
from importlib.metadata import entry_points
from importlib.resources import files

import jsonschema
from airflow.sdk._shared.module_loading import import_string

from corpuscore.orchestration.provider import get_provider_info


def test_airflow_finds_the_provider() -> None:
    """The installed package announces it by its entry point."""
    found = [
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.dist and point.dist.name == "corpuscore"
    ]
    assert [point.load() for point in found] == [get_provider_info]


def test_the_provider_follows_airflows_schema() -> None:
    """Airflow drops a provider whose metadata break its schema."""
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_all_that_is_named_can_be_imported() -> None:
    """Hooks and links are named by their paths."""
    info = get_provider_info()
    for path in [kind["hook-class-name"] for kind in info["connection-types"]] + info["extra-links"]:
        assert import_string(path)
    for kind in info["connection-types"]:
        assert import_string(kind["hook-class-name"]).conn_type == kind["connection-type"]
