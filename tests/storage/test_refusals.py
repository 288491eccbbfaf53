"""What a store's client raises becomes one of two errors, and says what to do."""

from __future__ import annotations

import errno
import inspect
import os
import pickle
import resource
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import botocore.exceptions
import pytest
from s3fs.errors import ERROR_CODE_TO_EXCEPTION

from corpuscore.errors import StorageError, StorageUnavailable
from corpuscore.storage import Store, filesystem, list_entries, patience, translated
from corpuscore.storage.refusals import LOGIN_CLASSES, LOGIN_CODES, TRANSIENT_CLASSES, TRANSIENT_CODES, translate
from tests.servers.s3 import answering, free_port, point_at, running_s3_server

#: botocore's classes after which the same request fails again: read, and judged to be so.
PERMANENT_CLASSES = frozenset(
    {
        "AliasConflictParameterError",
        "ApiVersionNotFoundError",
        "AwsChunkedWrapperError",
        "BaseEndpointResolverError",
        "BotoCoreError",
        "ClientError",
        "DataNotFoundError",
        "EndpointProviderError",
        "EndpointResolutionError",
        "EndpointVariantError",
        "EventStreamError",
        "InfiniteLoopConfigError",
        "InvalidChecksumConfigError",
        "InvalidConfigError",
        "InvalidDNSNameError",
        "InvalidDefaultsMode",
        "InvalidEndpointConfigurationError",
        "InvalidEndpointDiscoveryConfigurationError",
        "InvalidExpressionError",
        "InvalidHostLabelError",
        "InvalidIMDSEndpointError",
        "InvalidIMDSEndpointModeError",
        "InvalidMaxRetryAttemptsError",
        "InvalidProxiesConfigError",
        "InvalidRegionError",
        "InvalidRetryConfigurationError",
        "InvalidRetryModeError",
        "InvalidS3AddressingStyleError",
        "InvalidS3UsEast1RegionalEndpointConfigError",
        "InvalidSTSRegionalEndpointsConfigError",
        "MD5UnavailableError",
        "MissingDependencyException",
        "MissingParametersError",
        "MissingServiceIdError",
        "NoRegionError",
        "OperationNotPageableError",
        "PaginationError",
        "ParamValidationError",
        "RangeError",
        "SSLError",
        "ServiceNotInRegionError",
        "StubAssertionError",
        "StubResponseError",
        "UnStubbedResponseError",
        "UndefinedModelAttributeError",
        "UnknownClientMethodError",
        "UnknownEndpointError",
        "UnknownEndpointResolutionBuiltInName",
        "UnknownFIPSEndpointError",
        "UnknownKeyError",
        "UnknownParameterError",
        "UnknownRegionError",
        "UnknownServiceError",
        "UnknownServiceStyle",
        "UnknownSignatureVersionError",
        "UnseekableStreamError",
        "UnsupportedOutpostResourceError",
        "UnsupportedS3AccesspointConfigurationError",
        "UnsupportedS3ArnError",
        "UnsupportedS3ConfigurationError",
        "UnsupportedS3ControlArnError",
        "UnsupportedS3ControlConfigurationError",
        "UnsupportedServiceProtocolsError",
        "UnsupportedSignatureVersionError",
        "ValidationError",
        "WaiterConfigError",
        "WaiterError",
    }
)
#: Subclasses of what the module names.
TRANSIENT_SUBCLASSES = frozenset(
    {
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "EndpointConnectionError",
        "ProxyConnectionError",
        "ReadTimeoutError",
        "ResponseStreamingError",
    }
)
LOGIN_SUBCLASSES = frozenset(
    {
        "LoginAuthorizationCodeError",
        "LoginInsufficientPermissions",
        "LoginRefreshRequired",
        "LoginTokenLoadError",
        "SSOTokenLoadError",
        "UnauthorizedSSOTokenError",
    }
)
BOTOCORE_CLASSES = sorted(
    (
        kind
        for kind in vars(botocore.exceptions).values()
        if inspect.isclass(kind) and issubclass(kind, Exception) and not issubclass(kind, Warning)
        if kind.__module__ == botocore.exceptions.__name__
    ),
    key=lambda kind: kind.__name__,
)


def _s3_error(code: str) -> botocore.exceptions.ClientError:
    return botocore.exceptions.ClientError({"Error": {"Code": code, "Message": "said so"}}, "GetObject")


@pytest.mark.parametrize("kind", BOTOCORE_CLASSES, ids=lambda kind: kind.__name__)
def test_knows_every_botocore_class(kind: type[Exception]) -> None:
    """Each class of the installed botocore was judged; a new one fails here until somebody has read what it means."""
    transient = TRANSIENT_CLASSES | TRANSIENT_SUBCLASSES
    login = LOGIN_CLASSES | LOGIN_SUBCLASSES
    assert kind.__name__ in transient | login | PERMANENT_CLASSES
    found = translate(kind.__new__(kind), "read s3://bucket/key")
    if kind.__name__ in {"ClientError", "EventStreamError"}:  # judged by the code that they carry
        return
    if kind.__name__ in {"MissingServiceIdError", "UndefinedModelAttributeError"}:
        assert isinstance(found, StorageError)
        return
    assert type(found) is (StorageUnavailable if kind.__name__ in transient else StorageError)
    assert ("credentials" in str(found)) == (kind.__name__ in login)


@pytest.mark.parametrize("code", sorted(ERROR_CODE_TO_EXCEPTION))
def test_knows_every_code_of_s3(code: str) -> None:
    """A code becomes the error of its set, whether it comes from botocore or through s3fs."""
    raw = _s3_error(code)
    kind = ERROR_CODE_TO_EXCEPTION[code]
    adapted = kind("said so")
    adapted.__cause__ = raw
    for error in (raw, adapted):
        found = translate(error, "read s3://bucket/key")
        assert type(found) is (StorageUnavailable if code in TRANSIENT_CODES else StorageError)
        assert "s3://bucket/key" in str(found)
        assert ("AWS_ACCESS_KEY_ID" in str(found)) == (code in LOGIN_CODES)


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "gone"), StorageError, "nothing is there"),
        (PermissionError(errno.EACCES, "no"), StorageError, "permission denied"),
        (OSError(errno.ENOSPC, "full"), StorageError, "the disk is full"),
        (OSError(errno.EROFS, "ro"), StorageError, "read-only"),
        (OSError(errno.EIO, "broken"), StorageError, "broken"),
        (OSError(errno.ESTALE, "stale"), StorageUnavailable, "stale"),
        (TimeoutError("slow"), StorageUnavailable, "slow"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), StorageUnavailable, "reset"),
    ],
)
def test_knows_the_systems_errors(error: Exception, expected: type[Exception], said: str) -> None:
    """Errors of the operating system become ours by type and number, and ours pickle."""
    with pytest.raises(expected, match=said) as caught, translated("write /data/x"):
        raise error
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 (made in this line)


def test_leaves_alone_what_is_no_stores() -> None:
    """A bug of ours is not dressed up as a store's refusal."""
    with pytest.raises(ZeroDivisionError), translated("read x"):
        print(1 / 0)


def test_a_full_disk_is_named() -> None:
    """A device that is full says so, and what to do."""
    refused = pytest.raises(StorageError, match=r"the disk is full. Next: free space")
    with refused, translated("write /dev/full"), Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x" * 4096)


def test_a_file_that_cannot_grow_leaves_nothing(tmp_path: Path) -> None:
    """A write that fails half-way is an error, the object before it stays, and no piece of it is left."""
    store = Store(str(tmp_path))
    store.write("a", b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(StorageError, match="larger than this system allows"):
            store.write("a", b"x" * 2**21)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.read("a") == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("create", [False, True])
def test_a_location_under_a_file_is_refused(tmp_path: Path, create: bool) -> None:
    """A work location below a file is an error, and never mistaken for a key that is taken."""
    (tmp_path / "file").write_bytes(b"")
    store = Store(str(tmp_path / "file" / "work"))
    with pytest.raises(StorageError, match=r"create|write"):
        (store.create if create else store.write)("a", b"")


def test_a_location_that_cannot_be_written_is_refused() -> None:
    """A folder where nobody may write is found out before the work, root or not."""
    with pytest.raises(StorageError, match="writable-"):
        Store("/proc/corpuscore").check_writable()


def test_an_absent_bucket_is_named(s3: str) -> None:
    """Listing, reading and writing in a bucket that is not there say so."""
    with pytest.raises(StorageError, match="no such bucket"):
        list(list_entries(s3 + "-absent/x"))
    with pytest.raises(StorageError, match="no such bucket"):
        Store(s3 + "-absent").check_writable()


def test_wrong_credentials_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that knows nobody by this key is a permanent error that names the variables to check."""
    with running_s3_server(tmp_path / "log", INITIAL_NO_AUTH_ACTION_COUNT="0") as server:
        point_at(server.endpoint, monkeypatch)
        for action in (Store("s3://bucket").check_writable, lambda: list(list_entries("s3://bucket/x"))):
            with pytest.raises(StorageError, match=r"InvalidAccessKeyId.*Next: check AWS_ACCESS_KEY_ID"):
                action()


def test_no_credentials_are_refused(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any credentials the error says where they are looked for."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"Unable to locate credentials.*~/.aws/credentials"):
        list(list_entries(s3 + "/x"))


@pytest.mark.parametrize(("status", "code"), [(403, "SignatureDoesNotMatch"), (400, "ExpiredToken")])
def test_refused_requests_are_permanent(status: int, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad signature or an old token fails at once."""
    with answering(lambda _: (status, code)) as endpoint:
        point_at(endpoint, monkeypatch)
        with pytest.raises(StorageError, match=code):
            Store("s3://bucket").write("a", b"")


def test_an_endpoint_that_is_down_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listening is a transient error that names the endpoint."""
    port = free_port()
    point_at(f"http://127.0.0.1:{port}", monkeypatch)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)
    with pytest.raises(StorageUnavailable, match=str(port)):
        Store("s3://bucket").read("a")


def test_no_secret_of_an_endpoint_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login in the endpoint's address is refused by the client, in a message without it."""
    point_at(f"http://me:Zq42@127.0.0.1:{free_port()}", monkeypatch)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)
    with pytest.raises(StorageUnavailable, match="credentials encoded in URL") as caught:
        Store("s3://bucket").read("a")
    assert "Zq42" not in str(caught.value)


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "ServiceUnavailable")])
def test_a_server_in_trouble_may_recover(status: int, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """5xx beyond the client's patience is transient."""
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)
    with answering(lambda _: (status, code)) as endpoint:
        point_at(endpoint, monkeypatch)
        with pytest.raises(StorageUnavailable, match=code):
            Store("s3://bucket").write("a", b"")


def test_a_throttled_request_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """SlowDown is retried by the client that owns the call, until it passes."""
    asked: list[str] = []

    def respond(request: BaseHTTPRequestHandler) -> tuple[int, str]:
        asked.append(request.command)
        return (503, "SlowDown") if len(asked) < 4 else (200, "")

    with answering(respond) as endpoint:
        point_at(endpoint, monkeypatch)
        Store("s3://bucket").write("a", b"")
    assert asked == ["PUT"] * 4


def test_a_store_without_conditional_writes_gets_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenStack Swift's S3 does not know If-None-Match: the object is written all the same, and it is asked once."""
    conditions: list[str | None] = []

    def respond(request: BaseHTTPRequestHandler) -> tuple[int, str]:
        conditions.append(request.headers.get("If-None-Match"))
        return (501, "NotImplemented") if conditions[-1] else (200, "")

    with answering(respond) as endpoint:
        point_at(endpoint, monkeypatch)
        store = Store("s3://bucket")
        assert store.create("a", b"1")
        assert store.create("b", b"2")
    assert conditions == ["*", None, None]


def test_both_words_for_taken_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """While another writer is just making a key, the store is asked again; once it is there, it is taken."""
    asked: list[str] = []

    def respond(request: BaseHTTPRequestHandler) -> tuple[int, str]:
        asked.append(request.command)
        return (409, "ConditionalRequestConflict") if len(asked) < 3 else (412, "PreconditionFailed")

    with answering(respond) as endpoint:
        point_at(endpoint, monkeypatch)
        assert Store("s3://bucket").create("a", b"1") is False
    assert asked == ["PUT"] * 3


def test_a_configuration_file_leads_to_the_endpoint(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoint and region may come from ~/.aws/config, credentials from ~/.aws/credentials, by profile."""
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    (tmp_path / "config").write_text(f"[profile lab]\nregion = eu-west-1\nendpoint_url = {endpoint}\n")
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = k\naws_secret_access_key = s\n")
    for variable in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    Store(s3).check_writable()


def test_an_unknown_scheme_is_refused() -> None:
    """A scheme without a driver says so, and what may stand there."""
    with pytest.raises(StorageError, match=r"gopher://.*Next: check the scheme"):
        filesystem("gopher://hole/x")
    with pytest.raises(StorageError, match="no bucket is named"):
        filesystem("s3://")
