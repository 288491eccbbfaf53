"""The one place where errors of a store's client become StorageError or StorageUnavailable.

Four families meet here: what botocore raises, the S3 error codes that s3fs turns into OSError (the code stays in the
cause's response), what web servers answer, and the operating system's own errors. Whatever is not named below is not
transient.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from corpuscore.errors import CorpuscoreError, StorageError, StorageUnavailable

#: botocore classes (with their subclasses) after which the same request may pass later.
TRANSIENT_CLASSES = frozenset(
    {
        "CapacityNotAvailableError",
        "ConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "ChecksumError",
        "FlexibleChecksumError",
        "MetadataRetrievalError",
        "ResponseParserError",
    }
)

#: botocore classes that say: nobody is logged in here, or not properly.
LOGIN_CLASSES = frozenset(
    {
        "ConfigNotFound",
        "ConfigParseError",
        "CredentialRetrievalError",
        "LoginError",
        "NoAuthTokenError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "RefreshWithMFAUnsupportedError",
        "SSOError",
        "TokenRetrievalError",
        "UnknownCredentialError",
        "UnknownTokenProviderError",
    }
)

#: HTTP statuses that say so, whatever code a store gives with them.
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

#: S3 answers after which the same request may pass later.
#: Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
TRANSIENT_CODES = frozenset(
    {
        "409",
        "429",
        "500",
        "502",
        "503",
        "504",
        "BadDigest",
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestThrottled",
        "RequestTimeout",
        "RestoreAlreadyInProgress",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)

#: S3 answers that blame who asks, or what they may do.
LOGIN_CODES = frozenset(
    {
        "400",  # an answer without a body, to HEAD: what S3 says where credentials have expired
        "401",
        "403",
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "CredentialsNotSupported",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "NotSignedUp",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnauthorizedAccess",
    }
)

_LOGIN_STEP = (
    "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE or ~/.aws/credentials, and the rights of that key; "
    "where they were renewed, start the workers anew"
)
_WAIT_STEP = "check AWS_ENDPOINT_URL, the network and the store's health, then run again"
_WEB_STEP = "check the network and the server's health, then run again"
_WEB_LOGIN_STEP = "check the URL, and the server's login in ~/.netrc; or copy the object into a bucket"
_BOTOCORE_MODULES = frozenset({"botocore.exceptions", "botocore.parsers"})
_TRANSIENT_ERRNO = frozenset(
    {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH}
)
_ERRNO_STEPS = {
    errno.ENOSPC: ("the disk is full", "free space, or choose another location"),
    errno.EDQUOT: ("the disk quota is used up", "free space, or choose another location"),
    errno.EFBIG: (
        "the file is larger than this system allows",
        "raise the limit (ulimit -f), or choose another location",
    ),
    errno.EROFS: ("the file system is read-only", "choose a location that can be written"),
    errno.ENAMETOOLONG: ("the name is too long for this store", "choose a shorter location"),
    errno.EMFILE: ("this process has too many open files", "raise the limit (ulimit -n)"),
    errno.ELOOP: ("its links go round in a circle", "correct the links"),
}


def error_code(error: BaseException) -> str:
    """The S3 error code behind an error, such as NoSuchBucket; empty where there is none."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def _answer(error: BaseException) -> dict[str, Any]:
    """What botocore kept of the store's answer, which s3fs leaves in the cause; empty where there is none."""
    current: BaseException | None = error
    while current is not None:
        response = getattr(current, "response", None)
        if isinstance(response, dict):
            return response
        current = current.__cause__
    return {}


def _status(error: BaseException) -> int:
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _botocore_names(error: BaseException) -> set[str]:
    """Names of the botocore classes of an error: no import of botocore, which a local run never needs."""
    return {kind.__name__ for kind in type(error).__mro__ if kind.__module__ in _BOTOCORE_MODULES}


def _of_code(code: str, status: int, what: str, said: str) -> CorpuscoreError | None:
    if code in TRANSIENT_CODES or status in TRANSIENT_STATUSES:
        return StorageUnavailable(f"{what}: the store answered {code}: {said}", next_step=_WAIT_STEP)
    if code in LOGIN_CODES:
        rule = f"the store answered {code}: {said}"
        return StorageError(f"{what}: access refused", rule=rule, next_step=_LOGIN_STEP)
    if code == "NoSuchBucket":
        return StorageError(f"{what}: no such bucket", rule="a bucket has to be there before it is used",
                            next_step="check the bucket's name, AWS_ENDPOINT_URL and AWS_PROFILE")  # fmt: skip
    return None


def _of_botocore(names: set[str], what: str, said: str) -> CorpuscoreError | None:
    if "SSLError" in names:
        return StorageError(f"{what}: {said}", rule="the endpoint's certificate must be valid",
                            next_step="check AWS_ENDPOINT_URL and AWS_CA_BUNDLE")  # fmt: skip
    if names & TRANSIENT_CLASSES:
        return StorageUnavailable(f"{what}: {said}", rule="the endpoint must answer", next_step=_WAIT_STEP)
    if names & LOGIN_CLASSES:
        return StorageError(f"{what}: {said}", rule="the store wants valid credentials", next_step=_LOGIN_STEP)
    if names:
        return StorageError(f"{what}: {said}", next_step="check the AWS_* environment and ~/.aws/config")
    return None


def _of_web(error: BaseException, what: str, said: str) -> CorpuscoreError | None:
    """What a web server answered."""
    status = getattr(error, "status", None)
    if type(error).__name__ != "ClientResponseError" or not isinstance(status, int):
        return None
    if status in TRANSIENT_STATUSES:
        return StorageUnavailable(f"{what}: the server answered {said}", next_step=_WEB_STEP)
    if status in (401, 403, 407):
        return StorageError(f"{what}: access refused", rule=f"the server answered {said}", next_step=_WEB_LOGIN_STEP)
    return StorageError(f"{what}: the server answered {said}", next_step="check the URL")


def _of_system(error: BaseException, what: str, said: str) -> CorpuscoreError | None:
    if isinstance(error, FileNotFoundError):
        return StorageError(f"{what}: nothing is there", next_step="check the spelling and the mount or bucket")
    if isinstance(error, PermissionError):
        return StorageError(f"{what}: permission denied", rule=said, next_step="check the rights of this user or key")
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        return StorageError(
            f"{what}: {said}", rule="folders hold files, never the other way", next_step="check the path"
        )
    if isinstance(error, OSError) and error.errno in _ERRNO_STEPS:
        rule, step = _ERRNO_STEPS[error.errno]
        return StorageError(f"{what}: {said}", rule=rule, next_step=step)
    if _is_passing(error):
        return StorageUnavailable(f"{what}: {said or type(error).__name__}", next_step=_WAIT_STEP)
    return None


def _is_passing(error: BaseException) -> bool:
    """Timeouts, dropped connections, and what aiohttp says of them."""
    if isinstance(error, (TimeoutError, ConnectionError)) or type(error).__module__.startswith("aiohttp."):
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO


def translate(error: BaseException, what: str) -> CorpuscoreError | None:
    """The error of ours that says what a foreign one means; None where it is not a store's.

    Args:
        error: As the client or the operating system raised it.
        what: What was being done, and to what: `read s3://bucket/key`.
    """
    said = " ".join(str(error).split())[:500]
    known = (
        _of_code(error_code(error), _status(error), what, said)
        or _of_botocore(_botocore_names(error), what, said)
        or _of_web(error, what, said)
        or _of_system(error, what, said)
    )
    if known is None and (isinstance(error, OSError) or error_code(error)):
        return StorageError(
            f"{what}: {said or type(error).__name__}", next_step="see the store's own log for the reason"
        )
    return known


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Let a block raise errors of ours only, as far as a store is to blame.

    Raises:
        StorageError: What the store refuses for good.
        StorageUnavailable: What may pass later.
    """
    try:
        yield
    except CorpuscoreError:
        raise
    except Exception as error:
        ours = translate(error, what)
        if ours is None:
            raise
        raise ours from error
