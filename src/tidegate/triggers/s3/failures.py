"""What the clients of S3 and SQS raise -> what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
from botocore import exceptions as botocore
from botocore.parsers import ResponseParserError

from tidegate.errors import Permanent, RateLimited, Refused, ServiceError, Transient


class CredentialsRefused(Refused):
    """There are no credentials, or they count no longer: others may be found when they are looked for again."""


SEARCHED: Final = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, or give the machine a role"

_NO_CREDENTIALS = (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.CredentialRetrievalError,
    botocore.MetadataRetrievalError,
    botocore.TokenRetrievalError,
    botocore.SSOError,
)

_CREDENTIALS = frozenset(
    """AuthFailure ExpiredToken ExpiredTokenException IncompleteSignature InvalidAccessKeyId InvalidClientTokenId
    InvalidSecurity InvalidSignatureException InvalidToken MissingAuthenticationToken SignatureDoesNotMatch
    TokenRefreshRequired UnrecognizedClientException""".split()
)

_THROTTLED = frozenset(
    """BandwidthLimitExceeded KMS.ThrottlingException OverLimit RequestLimitExceeded RequestThrottled
    RequestThrottledException SlowDown Throttling ThrottlingException ThrottledException
    TooManyRequestsException""".split()
)

_LATER = frozenset({"RequestTimeout", "OperationAborted", "InternalError", "InternalFailure", "ServiceUnavailable"})

_PASSING = (
    botocore.ConnectionError,
    botocore.HTTPClientError,
    botocore.IncompleteReadError,
    botocore.ChecksumError,
    botocore.FlexibleChecksumError,
    aiohttp.ClientError,  # of a body that breaks off in the middle, which botocore's names do not cover
    TimeoutError,
    OSError,
)


@contextmanager
def judged(service: str, *, right: str, on: str) -> Iterator[None]:
    """Raise what to do about whatever a client raises inside: a `ServiceError` of `service`.

    `right` is what AWS calls the right that is needed, `on` names what it is needed on: both are told where it lacks.
    """
    try:
        yield
    except Exception as error:
        failure = _failure(service, error, right, on)
        if failure is None:
            raise
        raise failure from error


def code_of(error: botocore.ClientError) -> str:
    """Return the code of an error that the service answered with, fit to be shown."""
    code = str(error.response.get("Error", {}).get("Code") or "") or str(_status(error.response))
    return re.sub(r"[^\w.-]", "", code)[:60]


def _failure(service: str, error: Exception, right: str, on: str) -> ServiceError | None:
    name = type(error).__name__
    match error:
        case botocore.ClientError():
            return _answered(service, error, right, on)
        case botocore.NoCredentialsError():
            return CredentialsRefused(service, f"no AWS credentials were found; {SEARCHED}")
        case _ if isinstance(error, _NO_CREDENTIALS):
            return CredentialsRefused(service, f"the AWS credentials cannot be read ({name}); {SEARCHED}")
        case botocore.SSLError():
            return Transient(service, "its certificate cannot be verified; set AWS_CA_BUNDLE if it is of your own")
        case ResponseParserError():
            return Transient(service, f"what answers does not speak as {service} does; check the URLs in the settings")
        case _ if isinstance(error, _PASSING):
            return Transient(service, f"cannot be reached ({name}); check the network and the URLs in the settings")
        case botocore.BotoCoreError():
            return Permanent(service, f"cannot be asked this ({name})")
    return None


def _answered(service: str, error: botocore.ClientError, right: str, on: str) -> ServiceError:
    code, status = code_of(error), _status(error.response)
    if code in _CREDENTIALS:
        return CredentialsRefused(service, f"the AWS credentials are refused ({code}); renew them, or {SEARCHED}")
    if code == "RequestTimeTooSkewed":
        return Refused(service, "this machine's clock is wrong (RequestTimeTooSkewed); set it")
    if code in _THROTTLED or status == 429:
        return RateLimited(service, f"asks for fewer requests ({code})", retry_after=None)
    if code in _LATER or status >= 500 or status == 408:
        return Transient(service, f"answered {code}, HTTP {status}")
    if status in (401, 403):
        return Refused(service, f"{right} is denied on {on} ({code}); allow it to the credentials that are used")
    problem = f"answered {code}, HTTP {status}, to {right} on {on}"
    return Permanent(service, f"{problem}; check the URLs and the region in the settings")


def _status(response: Mapping[str, Any]) -> int:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else 0
