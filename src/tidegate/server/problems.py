"""Errors -> Problem Details (RFC 9457): what is wrong, and what the caller can do; never a document's text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from tidegate import errors

MEDIA_TYPE = "application/problem+json"
_NAMESPACE = "urn:tidegate:problem:"
_STORE_PAUSE = 5.0
_MOST_ERRORS = 20


class ProblemDetails(BaseModel):
    """What every error is answered with."""

    type: str = Field(description="which kind of problem it is: about:blank, where the status says it all")
    title: str
    status: int
    detail: str | None = None


class Problem(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, detail: str, *, kind: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Say what is wrong and what to do. `kind` tells it from others of the same status, as queue-full."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.headers = dict(headers or {})

    def response(self, **more: Any) -> JSONResponse:
        """Return it as an answer; `more` are members of its own."""
        body: dict[str, Any] = {
            "type": f"{_NAMESPACE}{self.kind}" if self.kind else "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
        }
        if self.detail:
            body["detail"] = self.detail
        return JSONResponse(body | more, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def later(seconds: float) -> dict[str, str]:
    """Return the header that says to try again in so many seconds."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def problem_of(error: errors.TidegateError) -> Problem:
    """Return what to answer for an error of ours."""
    match error:
        case errors.QueueFull():
            return Problem(503, str(error), kind="queue-full", headers=later(error.retry_in))
        case errors.EventInvalid():
            return Problem(422, str(error), kind="event-invalid")
        case errors.ThreadNotFound():
            return Problem(404, f"there is no thread {error.thread_id!r}", kind="thread-not-found")
        case errors.ThreadBusy():
            return Problem(409, str(error), kind="thread-busy", headers=later(1.0))
        case errors.IncompatibleThread() | errors.CheckpointDamaged():
            return Problem(500, str(error), kind="thread-unreadable")
        case errors.ThreadError():
            return Problem(409, str(error), kind="thread-state")
        case errors.DocumentTooLarge():
            return Problem(413, str(error), kind="document-too-large")
        case errors.UnsupportedDocument():
            return Problem(415, str(error), kind="document-unsupported")
        case errors.DocumentError():
            return Problem(422, str(error), kind="document-unusable")
        case errors.StoreUnavailable() | errors.StoreError():
            # Without its words: they name files and servers.
            detail = "the store cannot be used now; nothing was taken in, try again later"
            return Problem(503, detail, kind="store-unavailable", headers=later(_STORE_PAUSE))
        case errors.ServiceError():
            return Problem(502, str(error), kind="service")
        case _:
            return Problem(500, "", kind="unexpected")


def install(app: FastAPI) -> None:
    """Have all that is raised in this app answered so."""

    async def of_ours(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, Problem):
            return error.response()
        if isinstance(error, errors.TidegateError):
            return problem_of(error).response()
        raise error

    async def of_routing(_: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        return Problem(error.status_code, "", headers=error.headers).response()

    async def of_validation(_: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        # Where and what, never the value: it may be the document.
        wrong = [
            {"at": ".".join(map(str, each["loc"])), "message": str(each["msg"])}
            for each in error.errors()[:_MOST_ERRORS]
        ]
        detail = "; ".join(f"{each['at']}: {each['message']}" for each in wrong)
        return Problem(422, detail, kind="validation").response(errors=wrong)

    async def of_a_bug(_: Request, error: Exception) -> JSONResponse:
        return Problem(500, "", kind="unexpected").response()  # and it is raised again, for the boundary to log

    app.add_exception_handler(Problem, of_ours)
    app.add_exception_handler(Exception, of_a_bug)
    app.add_exception_handler(errors.TidegateError, of_ours)
    app.add_exception_handler(HTTPException, of_routing)
    app.add_exception_handler(RequestValidationError, of_validation)
