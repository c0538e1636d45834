"""The OpenAPI document is valid and true: what is asked and answered by its words goes as it says."""
from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from fakes import PATIENCE, Server, model, serving
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks

from zonda.server.app import ENDPOINTS
from zonda.server.openapi import document

OPERATIONS = [each.ok() for each in schemathesis.openapi.from_dict(document(ENDPOINTS)).get_all_operations()]


def test_the_document_is_valid(server: Server) -> None:
    found = server.get("/openapi.json").json
    schemathesis.openapi.from_dict(found).validate()  # by the schema that OpenAPI 3.1 publishes
    assert found["openapi"].startswith("3.1.") and found["components"]["schemas"]
    for schema in found["components"]["schemas"].values():  # of which that one says nothing
        jsonschema_rs.meta.validate(schema)


def test_it_says_where_a_key_is_needed(server: Server) -> None:
    assert {} in server.get("/openapi.json").json["security"]
    with serving(model(), api_key=("k",), access_log=False) as closed:
        found = closed.get("/openapi.json", authorization="Bearer k").json
    assert found["security"] == [{"bearer": []}, {"x-api-key": []}]
    free = {path for path, methods in found["paths"].items() for each in methods.values() if each.get("security") == []}
    assert free == {"/health", "/ui", "/ui/{file}"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.label)
def test_requests_by_the_document_and_against_it_are_answered_by_it(server: Server, operation: Any) -> None:
    modes = GenerationMode if takes(operation) else [GenerationMode.POSITIVE]
    asked = [operation.as_strategy(mode) for mode in modes]

    @settings(max_examples=10, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(st.one_of(asked))
    def ask(case: schemathesis.Case) -> None:
        reply = case.call(base_url=server.url, timeout=PATIENCE)
        case.validate_response(reply, excluded_checks=[checks.positive_data_acceptance])  # type: ignore[attr-defined]
        assert reply.status_code < 400 or reply.json()["error"]["message"]

    ask()


def takes(operation: Any) -> bool:
    """Whether there is anything in a request that can be wrong."""
    return bool(operation.body or operation.path_parameters or operation.query)
