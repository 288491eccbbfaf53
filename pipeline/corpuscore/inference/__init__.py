"""The Open Inference Protocol v2, as KServe, Triton and MLServer speak it: what servers and clients of it share.

open_inference.proto    the messages; open_inference_pb2*.py* are made of it by generate.py
tensors.py              texts and scores as messages
metadata.py             what a model says of itself

Source: https://github.com/kserve/open-inference-protocol
"""
