"""What a program with NVIDIA's tritonclient asks of a service; runs in an environment that has it, and prints JSON.

Its arguments: gRPC port, HTTP port, model. The texts come as a JSON list on standard input.
"""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http


def ask(library: ModuleType, port: str, model: str, texts: list[str]) -> dict[str, Any]:
    """One kind of client, all of its calls."""
    with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        ready = [client.is_server_live(), client.is_server_ready(), client.is_model_ready(model)]
        tensor = library.InferInput("text", [len(texts)], "BYTES")
        tensor.set_data_from_numpy(np.array([text.encode() for text in texts], np.object_))
        answer = client.infer(model, [tensor], request_id="seven")
        chosen = client.infer(model, [tensor], outputs=[library.InferRequestedOutput("probabilities")])
        try:
            client.infer("another", [tensor])
        except library.InferenceServerException as error:
            refusal = str(error)
        own = {"as_json": True} if library is tritonclient.grpc else {}
        return {
            "ready": ready,
            "server": client.get_server_metadata(**own)["name"],
            "metadata": client.get_model_metadata(model, **own),
            "probabilities": answer.as_numpy("probabilities").tolist(),
            "chosen": chosen.as_numpy("probabilities").tolist(),
            "tokens": answer.as_numpy("tokens").tolist(),
            "truncated": answer.as_numpy("truncated").tolist(),
            "refusal": refusal,
        }


if __name__ == "__main__":
    grpc_port, http_port, name = sys.argv[1:]
    given = json.load(sys.stdin)
    found = {
        "grpc": ask(tritonclient.grpc, grpc_port, name, given),
        "http": ask(tritonclient.http, http_port, name, given),
    }
    json.dump(found, sys.stdout)
