"""A Scorer whose model is behind a service that speaks the Open Inference Protocol v2 over gRPC.

address.py     grpc:// and grpcs:// URLs and their options
channel.py     one connection an address and process: certificates, token, load balancing
statuses.py    what each gRPC status means to a client, with the server's hints and words
offer.py       what the service says of the model, as a ScorerInfo
sizes.py       which texts go into one request
pace.py        how many requests are under way
breaker.py     waiting for a service that is gone
requests.py    one request: sent again, in halves, or given up
scorer.py      the stream of a corpus through it

Requests wait in threads, with gRPC's synchronous calls: what becomes of one (wait, send, try again, halve) is then
straight code, and an event loop would need a thread and two bridges besides.
"""
