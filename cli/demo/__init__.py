"""`penstock demo`: the whole loop on real servers, shown as it happens and counted at the end.

command    the command: stages in order, exit code, JSON
loop       the stages, in order
stack      the stack it runs on: `penstock up` as a process of its own
gateway    the HTTP API, as any upstream system would call it
receiver   a webhook receiver that verifies signatures with somebody else's library
corpus     the documents
questions  what is asked
examples   160 training examples
learning   examples in, a better model out
ladder     what each rung is worth: template, examples, retrieval, tuning
tally      what was sent against what came back, from the database and from the receiver
screen     what a person sees
"""
