from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.addresses import HIDDEN, is_readable, redacted, shown


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/data/corpus",
        "/data/year=2024/me@home/12:00",
        "local",
        "duckdb:///scores.duckdb",
        "duckdb:////data/a b/me:you@home.duckdb",
        "postgresql://host/db",
        "postgresql://me@host:5432/db?sslmode=require&sslkey=/keys/me.key&passfile=/keys/pgpass",
        "postgresql:///db?host=/run/postgresql&application_name=a%40b",
        "postgresql://me@a:5432,b,[::1]:5433/db?target_session_attrs=read-write&require_auth=password",
        "tcp://scheduler:8786",
        "tls://[fe80::1]:8786",
        "s3://bucket/mail/me@home.org/part-?.parquet",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/key",
        "abfs://container@account.dfs.core.windows.net/folder",
    ],
)
def test_an_address_without_a_secret_is_shown_as_it_is(address: str) -> None:
    """Run ids, work ids and messages know it by its own spelling."""
    assert shown(address) == address
    assert is_readable(address)
    assert redacted(f"no answer from {address}", address) == f"no answer from {address}"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("postgresql://me:Zq42@host:5432/db?sslmode=require", "postgresql://me@host:5432/db?sslmode=require"),
        ("postgresql://me:Zq42%2F%3F%23%40%3A%26%25@host/db", "postgresql://me@host/db"),
        ("postgresql://me:Zq42:Zq42@host/db", "postgresql://me@host/db"),
        ("postgresql://me:Zq42@a:5432,b:5433/db", "postgresql://me@a:5432,b:5433/db"),
        ("postgresql://me:Zq42@[::1]:5432/db", "postgresql://me@[::1]:5432/db"),
        ("postgresql://:Zq42@host/db", "postgresql://@host/db"),
        ("postgresql:///db?password=Zq42", "postgresql:///db"),
        ("postgresql:///db?host=/run/postgresql&password=Zq42", "postgresql:///db?host=/run/postgresql"),
        ("postgresql:///db?password=Zq42&password=Zq42x&user=me", "postgresql:///db?user=me"),
        ("postgresql://u@/db?host=/socket&password=Zq42@y", "postgresql://u@/db?host=/socket"),
        ("postgresql://me@host/db?sslmode=require&sslpassword=Zq42", "postgresql://me@host/db?sslmode=require"),
        ("postgresql://me@host/db?pass%77ord=Zq42", "postgresql://me@host/db"),
        ("postgresql://me@host/db?%70%61%73%73%77%6f%72%64=Zq42", "postgresql://me@host/db"),
        ("postgresql://me@host/db?PassWord=Zq42", "postgresql://me@host/db"),
        ("postgresql://me@host/db?password=Zq42#Zq42", "postgresql://me@host/db"),
        ("postgresql://me@host/db?password=Zq42?Zq42=Zq42", "postgresql://me@host/db"),
        ("postgresql://me@host/db#password=Zq42", "postgresql://me@host/db"),
        ("postgresql://me@host/db?port=1;password=Zq42", "postgresql://me@host/db"),
        ("postgresql://me@host/db?scram_client_key=Zq42", "postgresql://me@host/db"),
        ("postgresql://me@host/db?oauth_client_secret=Zq42", "postgresql://me@host/db"),
        ("tls://me:Zq42@scheduler:8786", "tls://me@scheduler:8786"),
        ("s3://AKIA:Zq42@bucket/key", "s3://AKIA@bucket/key"),
        ("https://host/a.csv?X-Amz-Date=1&X-Amz-Signature=Zq42", "https://host/a.csv?X-Amz-Date=1"),
    ],
)
def test_secrets_are_left_out(address: str, expected: str) -> None:
    """The login's password and the parameters with a secret's name leave an address, and nothing else does."""
    assert shown(address) == expected
    assert is_readable(address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://me:Zq42%2F%3F@host/db", ["Zq42/?", "Zq42%2F%3F"]),
        ("postgresql://me:Zq42:Zq42@host/db", ["Zq42:Zq42"]),
        ("postgresql://me:Zq42@host/db?sslpassword=Zq42x&password=Zq42y", ["Zq42", "Zq42x", "Zq42y"]),
        ("postgresql://host/db?pass%77ord=Zq42%26&pwd=Zq42?b=Zq42", ["Zq42&", "Zq42?b=Zq42"]),
    ],
)
def test_a_message_is_rid_of_the_secrets(address: str, said: list[str]) -> None:
    """Whatever a driver repeats of them, percent-encoded or not; the rest of its message stays."""
    message = f"{' and '.join(said)} and {address} were refused"
    assert "Zq" not in redacted(message, address)
    assert redacted(message, address).endswith("were refused")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:Zq/42@host/db",
        "postgresql://me:12/Zq@host/db",
        "postgresql://me:Zq?42@host/db",
        "postgresql://me:Zq?password=42@host/db",
        "postgresql://me:Zq#42@host/db",
        "postgresql://me:Zq@42@host/db",
        "postgresql://me:Zq@42/Zq@host/db",
        "postgresql://me:Zq42",
        "postgresql://me:Zq42/db",
        "postgresql://host:1,me:Zq42/db",
        "postgresql://me%3AZq42@host/db",
        "postgresql:///db?password=Zq&Zq42&user=me",
        " postgresql://me:Zq42@host/db",
        "postgresql:me:Zq42@host/db",
        "jdbc:postgresql://me:Zq42@host/db",
        "//me:Zq42@host/db",
        "me:Zq42@host",
        "me:Zq://42@host",
        "host=db user=me password=Zq42",
        "host=db user=me password = 'Zq 42'",
        "tls://me:Zq/42@scheduler:8786",
        "s3://AKIA:Zq/42@bucket/key",
        "zip://a.csv::https://me:Zq42@host/a.zip",
    ],
)
def test_what_cannot_be_told_from_its_secret_is_not_shown(address: str) -> None:
    """An address that is broken, most often by its own password, is hidden whole, and so are messages about it."""
    assert shown(address) == HIDDEN
    assert not is_readable(address)
    assert redacted(f"could not use {address}", address) == HIDDEN


@given(st.text(min_size=1), st.sampled_from(["postgresql://me:{}@host/db", "tls://host:1?a=b&sslpassword={}"]))
def test_an_encoded_secret_is_never_shown(secret: str, pattern: str) -> None:
    """Whatever a password holds, percent-encoded it leaves the address, and in either spelling a message."""
    encoded = quote("Zq" + secret, safe="", errors="surrogatepass")
    address = pattern.format(encoded)
    assert "Zq" not in shown(address)
    assert is_readable(address)
    assert "Zq" not in redacted(f"bad {encoded}, or Zq{secret}", address)


@given(st.text(min_size=1), st.sampled_from(["postgresql://me:{}@host/db", "s3://me:{}@bucket/key", "me:{}@host"]))
def test_a_raw_secret_is_never_shown(secret: str, pattern: str) -> None:
    """Whatever a password holds, unescaped or not, nothing of it is seen."""
    assert "Zq" not in shown(pattern.format(f"Zq{secret}Zq"))
