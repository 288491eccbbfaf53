"""The service: a loaded model behind gRPC and HTTP, in the Open Inference Protocol."""
