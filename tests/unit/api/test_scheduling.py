"""The scheduling document follows the catalogs: every policy, ordering and gate, and their parameters."""

import dataclasses

import pytest
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from halffull.api.scheduling import Parameters, Scheduling, parameters_of
from halffull.core.gate import GATES
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES

ENTRIES = {**POLICIES, **ORDERINGS, **GATES}
WITH_PARAMETERS = [entry for entry in ENTRIES.values() if entry.parameters is not None]


@pytest.mark.parametrize(("field", "catalog"), [("policy", POLICIES), ("ordering", ORDERINGS), ("gate", GATES)])
def test_every_name_of_a_catalog_can_be_chosen(field, catalog):
    for name in catalog:
        assert getattr(Scheduling.model_validate({field: name}), field) == name


@pytest.mark.parametrize("entry", WITH_PARAMETERS, ids=lambda entry: entry.name)
def test_parameters_are_the_dataclass_of_the_catalog(entry):
    block = to_camel(entry.name.replace("-", "_"))

    read = parameters_of(Scheduling.model_validate({"parameters": {block: {}}}), entry.name)

    assert read == entry.parameters()
    for field in dataclasses.fields(read):
        key = to_camel(field.name)
        again = {"parameters": {block: {key: getattr(read, field.name)}}}
        assert parameters_of(Scheduling.model_validate(again), entry.name) == read


def test_parameters_of_what_has_none_or_gives_none():
    assert parameters_of(Scheduling(), "sal") is None
    assert parameters_of(Scheduling(), "round-robin") is None


@pytest.mark.parametrize("entry", WITH_PARAMETERS, ids=lambda entry: entry.name)
def test_an_unknown_parameter_is_refused(entry):
    block = to_camel(entry.name.replace("-", "_"))

    with pytest.raises(ValidationError, match=f"parameters.{block}.mistyped"):
        Scheduling.model_validate({"parameters": {block: {"mistyped": 1}}})


@pytest.mark.parametrize("value", ["1", True, [1]])
def test_no_value_is_converted(value):
    with pytest.raises(ValidationError, match=r"parameters\.powerOfTwo\.choices"):
        Scheduling.model_validate({"parameters": {"powerOfTwo": {"choices": value}}})


def test_parameters_has_a_block_for_each_entry_with_parameters_and_no_other():
    assert {field.alias for field in Parameters.model_fields.values()} == {
        to_camel(entry.name.replace("-", "_")) for entry in WITH_PARAMETERS
    }


def test_the_default_policy_is_sal():
    assert Scheduling().policy == "sal"
    assert Scheduling().dump()["policy"] == "sal"


def test_null_is_the_default_as_on_the_api_server():
    empty = {"queue": None, "gate": None, "parameters": {"sal": None, "powerOfTwo": {"choices": None}}}

    assert Scheduling.model_validate(empty) == Scheduling.model_validate({"parameters": {"powerOfTwo": {}}})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_is_finite(number):
    with pytest.raises(ValidationError, match=r"parameters\.sal\.memoryWeight"):
        Scheduling.model_validate({"parameters": {"sal": {"memoryWeight": number}}})
