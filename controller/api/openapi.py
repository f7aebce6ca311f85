"""The OpenAPI file: FastAPI's own, with what its annotations can't say.

It adds the bodies that `reading` checks (FastAPI never sees them), the bearer scheme,
and the one error shape of every route; it takes out FastAPI's validation error, which
this API never answers.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from controller.api.bodies import DeviceBody, JobBody, TaintBody
from controller.api.plan_bodies import PlanBody
from controller.api.problems import ProblemShape
from controller.api.rebalance_shapes import NoBody, RebalanceBody

BODIES = (JobBody, DeviceBody, TaintBody, PlanBody, RebalanceBody, NoBody)
_REF = "#/components/schemas/{model}"
Json = dict[str, Any]  # OpenAPI is a tree without a static shape; it doesn't leave this file
_PROBLEM_RESPONSE: Json = {
    "description": "A problem, RFC 9457",
    "content": {"application/problem+json": {"schema": {"$ref": _REF.format(model="ProblemShape")}}},
}
KEY_PARAMETER: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same body gives the same job.",
    "schema": {"type": "string", "maxLength": 255},
}


def body_reference(model: type[BaseModel]) -> Json:
    """For `openapi_extra` of a route that reads its body by `read_json`."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe(app: FastAPI, open_paths: frozenset[str], guarded_paths: frozenset[str]) -> None:
    """Completes the schema of `app`, which is made when first asked for."""
    made = app.openapi

    def openapi() -> Json:
        if app.openapi_schema is None:
            schema = made()
            _complete(schema, open_paths, guarded_paths)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _complete(schema: Json, open_paths: frozenset[str], guarded_paths: frozenset[str]) -> None:
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(body, "validation") for body in BODIES]
    _, bodies = models_json_schema(models, ref_template=_REF)
    problem = TypeAdapter(ProblemShape).json_schema(ref_template=_REF)
    schemas.update(bodies["$defs"], **problem.pop("$defs", {}), ProblemShape=problem)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        guarded = (path.startswith("/api/") and path not in open_paths) or path in guarded_paths
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _PROBLEM_RESPONSE
            if guarded:
                operation["security"] = [{"token": []}]
