"""The service: a loaded model behind gRPC and HTTP, in the Open Inference Protocol.

running.py      its life, from the open doors to the last answer
batching.py     requests that wait together share a pass        requests.py, turns.py    whose texts go next
admission.py    how much may wait                               counters.py              what is counted
grpcfront.py    the door for gRPC                               refusals.py              errors as statuses
httpfront.py    the door for HTTP, with httpserver.py, httpbody.py, httptensors.py and page.py around it
doors.py        addresses, certificates, the token
"""
