"""Make the Python of the protocol from its .proto file: `python -m corpuscore.inference.generate`.

Needs grpcio-tools. The files lie beside the .proto file under version control; nobody edits them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from corpuscore.errors import JobError

#: What is made, beside the .proto file.
GENERATED = ("open_inference_pb2.py", "open_inference_pb2.pyi", "open_inference_pb2_grpc.py")

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]


def generate(folder: Path) -> None:
    """Write the generated files under a folder that stands for the one with the package `corpuscore` in it.

    Raises:
        JobError: The compiler finds a fault in the .proto file.
    """
    from grpc_tools import protoc

    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    proto = _HERE / "open_inference.proto"
    if protoc.main(["protoc", f"--proto_path={_ROOT}", *outputs, str(proto)]) != 0:
        raise JobError(f"{proto} cannot be compiled", next_step="correct what protoc said above")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else _ROOT)
