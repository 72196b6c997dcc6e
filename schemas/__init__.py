"""What is said between the parts of Penstock, and nothing about how: pure values that import nobody.

errors     the one tree of errors
ids        names for ids, and UUIDv7
states     every state, and the only place that allows a transition
envelope   the CloudEvents envelope as Penstock accepts it
inbound    the data of events that come in
internal   the data of events that Penstock sends to itself
outbound   the data of events that go out, which webhooks receive
registry   event type -> model, queue, version
work       an event as a worker holds it, and what its handler says next
strict_json  bytes become JSON in one way only
values     metadata, messages and other shapes that several events share
"""
