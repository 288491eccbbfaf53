"""How long it takes to list a corpus of many objects and to freeze its manifest, and how that grows.

    python tests/benchmarks/listing.py [--objects 10000 50000 100000]

A real S3 server process (moto) on loopback serves pages of 1,000. It fills its buckets itself at the start, since that
many PUT requests would take longer than the benchmark, and it answers listings from an index, as S3 does: by itself
moto sorts all keys again for each page, which at 100,000 objects is most of the time. Each size is measured in a
process of its own, so that its peak memory is its own. Bar: 60 s and 1 GiB at 100,000 objects.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

_BAR_SECONDS, _BAR_MIB = 60, 1024
_ROOT = Path(__file__).parents[2]


def serve(sizes: list[int]) -> None:
    """Run an S3 server whose bucket `objects-N` holds N small JSON Lines objects; prints its port when ready."""
    from moto.s3.models import s3_backends
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    backend = s3_backends["123456789012"]["aws"]
    for size in sizes:
        backend.create_bucket(f"objects-{size}", "us-east-1")
        for number in range(size):
            name = f"corpus/shelf={number % 100:02d}/part-{number:07d}.jsonl"
            backend.put_object(f"objects-{size}", name, b'{"id": "%d", "text": "A line."}\n' % number)
    index_listings()
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


def index_listings() -> None:
    """Let moto serve the pages of `corpus/` from an index."""
    from moto.s3.responses import S3Response

    unindexed = S3Response.list_objects_v2
    lines_of: dict[str, list[str]] = {}

    def list_page(self: S3Response) -> tuple[int, dict[str, Any], str | bytes]:
        if self.querystring["prefix"][0] != "corpus/":
            return unindexed(self)
        bucket = self.backend.get_bucket(self.bucket_name)
        lines = lines_of.setdefault(bucket.name, [])
        if not lines:
            lines += [_listing_line(key) for name, key in sorted(bucket.keys.items()) if name.startswith("corpus/")]
        start = int(self.querystring.get("continuation-token", ["0"])[0])
        stop = start + 1000
        more = f"<NextContinuationToken>{stop}</NextContinuationToken>" if stop < len(lines) else ""
        head = f"<IsTruncated>{str(stop < len(lines)).lower()}</IsTruncated><EncodingType>url</EncodingType>{more}"
        return 200, {}, f"<ListBucketResult>{head}{''.join(lines[start:stop])}</ListBucketResult>"

    S3Response.list_objects_v2 = list_page  # type: ignore[method-assign]


def _listing_line(key: Any) -> str:
    return (
        f"<Contents><Key>{quote(key.name)}</Key><LastModified>{key.last_modified_ISO8601}</LastModified>"
        f"<ETag>{escape(key.etag)}</ETag><Size>{key.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def measure(size: int) -> dict[str, float]:
    """List, split, freeze and save in this process: seconds of wall time and CPU, and peak memory in MiB."""
    from corpuscore.corpus import list_objects, split
    from corpuscore.manifest import Manifest
    from corpuscore.options import ReadOptions
    from corpuscore.records import ScorerInfo
    from corpuscore.storage import Store

    reading = ReadOptions(id_columns=("id",))
    scorer = ScorerInfo(("joy",), "sigmoid", "0" * 16, "bert", "fp32", "bundled")
    started, cpu = time.perf_counter(), time.process_time()
    objects = list_objects([f"s3://objects-{size}/corpus/"])
    listed = time.perf_counter()
    manifest = Manifest.freeze(
        scorer=scorer, reading=reading, max_tokens=512, long_documents="truncate", options_digest="0",
        partitions=split(objects, 10_000, reading),
    )  # fmt: skip
    key = manifest.save(Store(f"s3://objects-{size}/work"))
    frozen = time.perf_counter()
    assert len(manifest) == size
    assert len(set(manifest.work_ids)) == size
    stored = Store(f"s3://objects-{size}/work").find(key)[key]
    return {
        "list_seconds": listed - started,
        "freeze_seconds": frozen - listed,
        "total_seconds": frozen - started,
        "client_cpu_seconds": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "manifest_mib": stored / 2**20,
    }


def run(sizes: list[int]) -> list[dict[str, float]]:
    """One server, one process a size; ends the server."""
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", *map(str, sizes)],
            stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            environment = {
                **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_CONFIG_FILE": os.devnull,
                "PYTHONPATH": str(_ROOT),
            }
            results = []
            for size in sizes:
                command = [sys.executable, __file__, "--measure", str(size)]
                done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
                results.append({"objects": size, **json.loads(done.stdout)})
            return results
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def report(results: list[dict[str, float]]) -> str:
    """The results as a Markdown table, with what they were measured on."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("s3fs", "botocore", "pyarrow", "moto"))
    rows = [
        "| {objects:,.0f} | {list_seconds:.1f} | {freeze_seconds:.1f} | {total_seconds:.1f} | {client_cpu_seconds:.1f} "
        "| {peak_mib:.0f} | {manifest_mib:.1f} |".format(**result)
        for result in results
    ]
    return "\n".join(
        [
            f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {versions}; "
            f"client and server share the machine; load average at the end {os.getloadavg()[0]:.1f}.",
            "",
            "| objects | list, s | split + freeze + save, s | in all, s | client CPU, s | peak, MiB | manifest, MiB |",
            "|---:|---:|---:|---:|---:|---:|---:|",
            *rows,
        ]
    )


def main() -> int:
    """Run it; exit status 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[10_000, 50_000, 100_000], metavar="N")
    parser.add_argument("--serve", type=int, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    elif arguments.measure:
        print(json.dumps(measure(arguments.measure)))
    else:
        results = run(arguments.objects)
        print(report(results))
        worst = results[-1]
        return int(worst["total_seconds"] > _BAR_SECONDS or worst["peak_mib"] > _BAR_MIB)
    return 0


if __name__ == "__main__":
    sys.exit(main())
