"""The OpenAPI document is valid and true: what is asked and answered by its words goes as it says."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fakes import Server, model, serving
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import load_all_checks
from schemathesis import GenerationMode

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "response_headers_conformance", "negative_data_rejection", "unsupported_method", "allow_header_conformance")


def test_the_document_is_valid(server: Server) -> None:
    assert not list(OpenAPIV31SpecValidator(server.get("/openapi.json").json).iter_errors())


def test_it_says_where_a_key_is_needed(server: Server) -> None:
    assert {} in server.get("/openapi.json").json["security"]
    with serving(model(), api_key=("k",), access_log=False) as closed:
        found = closed.get("/openapi.json", authorization="Bearer k").json
    assert found["security"] == [{"bearer": []}, {"x-api-key": []}]
    free = {path for path, methods in found["paths"].items() for each in methods.values() if each.get("security") == []}
    assert free == {"/health", "/ui", "/ui/{file}"}
