"""The HTTP API: requests become events, and what became of them is told.

app         puts the routes together
serve       runs the API and the ops port in one process
resources   what the API stands on, opened once
exchange    every request gets an id, headers and one log line
problems    every error becomes a problem document (RFC 9457)
body        bytes become JSON, strictly
modes       a request becomes CloudEvents: structured, batch or binary
access      a bearer key becomes a caller with scopes
paging      cursors
addresses   what stands in a path or a Location header
respond     plain values leave as JSON
shapes      requests and answers as models
metrics     what the gateway counts
answering   waiting for answers, and relaying them as they are written
openapi     what the OpenAPI document says beyond what FastAPI sees
problem_protocol  bytes that are not HTTP
routes/     one file per kind of thing
"""
