"""Which file system serves a URI, and the one spelling that a URI has in manifests and receipts."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import fsspec

from corpuscore.addresses import is_writable, shown
from corpuscore.errors import StorageError
from corpuscore.storage.refusals import translated

_S3_SCHEMES = ("s3", "s3a")
_LOCAL_SCHEMES = ("file", "local", "")
_WEB_SCHEMES = ("http", "https")
#: The package of a scheme's driver, where it does not come with corpuscore.
_DRIVERS = {
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    **dict.fromkeys(("hdfs", "arrow_hdfs"), "pyarrow (and set HADOOP_HOME, JAVA_HOME and CLASSPATH)"),
    "oss": "ossfs",
    "oci": "ocifs",
    "smb": "smbprotocol",
    "webdav": "webdav4",
    "hf": "huggingface_hub",
}
#: How a driver is told to show no credentials.
_ANONYMOUS: dict[str, dict[str, Any]] = {
    **{scheme: {"anon": True} for scheme in (*_S3_SCHEMES, "az", "abfs", "abfss")},
    **{scheme: {"token": "anon"} for scheme in ("gs", "gcs")},
}

_LINK_SECONDS = 3600

_made: dict[tuple[object, ...], Any] = {}
_making = threading.Lock()


def scheme_of(uri: str) -> str:
    """`s3` of `s3://bucket/key`; empty for a plain path."""
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""


def canonical_uri(uri: str) -> str:
    """The one spelling of a URI: `s3://bucket/key`, `file:///absolute/path`, no `..`, a trailing slash kept.

    A manifest names objects by it, so that the same object has one work id whoever asks, from whatever folder; and
    manifests, receipts and tables are read by many, so that it may hold no secret.

    Raises:
        StorageError: There is a secret in it, or may be; or it holds what no path can.
    """
    if not is_writable(uri):
        raise StorageError(
            f"the location {ascii(uri)[:200]}",
            rule="a location is text in UTF-8 without NUL",
            next_step="give the folder or object another name",
        )
    scheme = scheme_of(uri)
    rest = uri.partition("://")[2] if scheme else uri
    if scheme in _LOCAL_SCHEMES:
        folder = "/" if rest.endswith("/") and rest.strip("/") else ""
        return "file://" + os.path.abspath(Path(rest).expanduser()) + folder  # noqa: PTH100 (resolve follows links)
    if shown(uri) != uri:
        raise StorageError(
            f"{shown(uri)}: a password or key is in this location, or cannot be told from the rest of it (not shown)",
            rule="a location takes its credentials from the environment (AWS_*) or from configuration files",
            next_step="leave them out of the address",
        )
    return f"{'s3' if scheme in _S3_SCHEMES else scheme}://{rest}"


def filesystem(uri: str, anonymous: bool = False) -> tuple[Any, str]:
    """The fsspec file system of a URI, and the path in it.

    One instance serves a process (and one AWS environment): a client holds a pool of connections, and making one takes
    longer than a request. fsspec's own caches are off, since they hide what other writers do.

    Args:
        uri: Of anything in it.
        anonymous: Without credentials, also where there are some: for buckets that are open to everybody.

    Raises:
        StorageError: No driver for this scheme is installed.
    """
    canonical = canonical_uri(uri)
    scheme, _, rest = canonical.partition("://")
    if scheme in _S3_SCHEMES and not rest.strip("/"):
        raise StorageError(f"{uri}: no bucket is named", rule="an S3 location is s3://bucket/key", next_step="add one")
    anonymous = anonymous and scheme in _ANONYMOUS
    key = (scheme, os.getpid(), anonymous, *(_aws_environment() if scheme in _S3_SCHEMES else ()))
    with _making:
        if key not in _made:
            _made[key] = _make(scheme, uri, anonymous)
    return _made[key], canonical if scheme in _WEB_SCHEMES else rest


def path_of(canonical: str) -> str:
    """The path of a canonical URI, without its scheme: the inverse of uri_of."""
    return canonical.partition("://")[2]


def is_listed(canonical: str) -> bool:
    """Whether what lies under a canonical URI can be listed; web servers have no listings."""
    return scheme_of(canonical) not in _WEB_SCHEMES


def uri_of(scheme: str, path: str) -> str:
    """The canonical URI of a path that a file system of this scheme named."""
    return f"{scheme}://{path}"


def link_of(uri: str) -> str:
    """An address that a browser opens, of an object that may be private; of a bucket's, it is signed for an hour.

    Raises:
        StorageError, StorageUnavailable: No driver, or no credentials to sign with.
    """
    if scheme_of(uri) in (*_LOCAL_SCHEMES, *_WEB_SCHEMES):
        return canonical_uri(uri)
    store, path = filesystem(uri)
    with translated(f"sign a link to {uri}"):
        return str(store.sign(path, expiration=_LINK_SECONDS))


def _aws_environment() -> tuple[tuple[str, str], ...]:
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))


def _make(scheme: str, uri: str, anonymous: bool) -> Any:
    if scheme in _S3_SCHEMES:
        from corpuscore.storage.s3 import make_s3  # takes a second, which a run on files never pays

        return make_s3(anonymous)
    if scheme in _WEB_SCHEMES:
        from corpuscore.storage.web import make_web

        return make_web()
    options = _ANONYMOUS[scheme] if anonymous else {}
    try:
        with translated(f"open {uri}"):
            return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **options)
    except (ValueError, ImportError) as error:
        driver = _DRIVERS.get(scheme)
        raise StorageError(
            f"{uri}: {error}",
            rule="a location is a path, s3://bucket/key, or a URL whose fsspec driver is installed",
            next_step=f"pip install {driver}" if driver else f"check the scheme {scheme!r}, or install its driver",
        ) from error
