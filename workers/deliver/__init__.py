"""A result becomes a signed webhook: sent, and sent again until it arrives or is given up with its reason.

pool      opens what the wing needs, and its one handler
handler   one attempt: may we send? -> sign -> send -> decide -> record
due       what is loaded for an attempt, and whether it may be sent at all
gates     how many attempts one endpoint may have under way, and when none
breaker   whether an endpoint is down or asks us to slow down: a pure decision
rate      the pace of endpoints that have a rate limit
sign      Standard Webhooks signatures over the stored bytes
send      the request, and what it came to
schedule  what follows from it: a pure decision
record    the decision as rows
"""
