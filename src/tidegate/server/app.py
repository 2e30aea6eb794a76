"""The HTTP interface as one app: its routes, its description, and what it answers errors with."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer

from tidegate.errors import StoreError, StoreUnavailable
from tidegate.server import problems, threads, views
from tidegate.server.context import Context

_STORE_SECONDS = 2.0


def build(context: Context, *more: APIRouter) -> FastAPI:
    """Return the app; `more` are routers beside those of the interface itself."""
    app = FastAPI(
        title="Tidegate",
        version=version("tidegate"),
        summary="Documents in, enriched and sourced summaries out.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # their scripts would come from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    problems.install(app)
    app.include_router(threads.router(context), responses=_ERRORS, dependencies=[_BEARER])
    app.include_router(_circuits(context), responses=_ERRORS, dependencies=[_BEARER])
    app.include_router(_health(context))
    for router in more:
        app.include_router(router, responses=_ERRORS)
    return app


_BEARER = Depends(HTTPBearer(auto_error=False, description="needed where the server has tokens"))
"""For the description alone: the boundary has looked at the token before."""

_ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "an error",
        "content": {problems.MEDIA_TYPE: {"schema": problems.ProblemDetails.model_json_schema()}},
    },
    422: {
        "description": "the request, or its document, cannot be worked on",
        "content": {problems.MEDIA_TYPE: {"schema": problems.ProblemDetails.model_json_schema()}},
    },
}


def _circuits(context: Context) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["circuits"])

    @routes.get("/circuits", response_model=views.Circuits, summary="Show the circuit of every service")
    async def circuits() -> views.Circuits:
        return views.Circuits(circuits=[views.Circuit.of(each) for each in await context.pipeline.circuits()])

    return routes


def _health(context: Context) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz", response_model=views.Health, summary="Whether the process lives")
    async def live() -> Response:
        return JSONResponse({"status": "ok"})

    @routes.get(
        "/readyz",
        response_model=views.Health,
        summary="Whether it takes work",
        responses={503: {"model": views.Health}},
    )
    async def ready() -> Response:
        reason = await unready(context)
        return JSONResponse(
            {"status": "ready"} if reason is None else {"status": "unready", "reason": reason}, 503 if reason else 200
        )

    return routes


async def unready(context: Context) -> str | None:
    """Say why the service takes no work now; None if it does."""
    if context.stopping.is_set():
        return "it is ending"
    if not context.is_working():
        return "its engine does not run"
    return None if await store_answers(context) else "its store does not answer"


async def store_answers(context: Context) -> bool:
    """Say whether the store can be read, soon."""
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            await context.pipeline.registry.pause_left()
    except (TimeoutError, StoreError, StoreUnavailable):
        return False
    return True
