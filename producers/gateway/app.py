"""The routes become one application here, with the layers that every request passes through around them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from infra.settings import Settings
from infra.templates import TemplateBody
from infra.training_store import DatasetSettings
from producers.gateway import openapi, openapi_examples, openapi_rules
from producers.gateway.exchange import Exchange
from producers.gateway.problems import on_http_exception, on_penstock_error, on_validation_error
from producers.gateway.resources import Gateway
from producers.gateway.routes import (
    collections,
    datasets,
    documents,
    erasures,
    events,
    health,
    hooks,
    queries,
    search,
    templates,
    training,
    webhooks,
)
from producers.gateway.shapes import base, questions
from producers.gateway.shapes import documents as documents_shapes
from producers.gateway.shapes import erasures as erasures_shapes
from producers.gateway.shapes import training as training_shapes
from producers.gateway.shapes import webhooks as webhooks_shapes
from schemas.errors import PenstockError

API_VERSION = "1.0.0"
BODIES: list[type[BaseModel]] = [
    base.Problem,
    TemplateBody,
    documents_shapes.DocumentBody,
    documents_shapes.CollectionBody,
    questions.SearchBody,
    questions.QueryBody,
    questions.FeedbackBody,
    training_shapes.ExampleBody,
    training_shapes.ExamplesBody,
    training_shapes.ReviewBody,
    training_shapes.RollbackBody,
    DatasetSettings,
    webhooks_shapes.WebhookBody,
    webhooks_shapes.WebhookChange,
    webhooks_shapes.RotateBody,
    webhooks_shapes.ReplayBody,
    erasures_shapes.ErasureBody,
]
ROUTERS = (
    events,
    documents,
    collections,
    search,
    queries,
    datasets,
    training,
    templates,
    webhooks,
    hooks,
    erasures,
    health,
)


def create_app(settings: Settings, resources: Gateway) -> FastAPI:
    """The HTTP API over resources that somebody else opened and will close."""
    del settings  # the resources carry them; the argument keeps the order of `serve`
    app = FastAPI(
        title="Penstock",
        version=API_VERSION,
        summary="Documents become searchable knowledge, questions cited answers, examples a better model.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Its spans would carry paths with tenants' ids.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={
            PenstockError: on_penstock_error,
            HTTPException: on_http_exception,
            RequestValidationError: on_validation_error,
        },
    )
    app.state.gateway = resources
    app.add_middleware(Exchange, metrics=resources.metrics)
    for module in ROUTERS:
        app.include_router(module.router)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=openapi_rules.LIMITS,
                routes=app.routes,
            )
            openapi.add_schemas(made, BODIES)
            made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            made["security"] = [{"key": []}]
            openapi_rules.apply(made)
            openapi_examples.show(made)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way to extend the document
    return app
