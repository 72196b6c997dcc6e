"""The `penstock` command: the only place that knows everybody.

main       the tree of commands, and what an error looks like
run        settings, logging, the event loop and exit codes, the same for every command
show       tables for people, JSON for machines
serve      worker, gateway, migrate, maintain
bridge     a Redis stream, read for one tenant
children   the processes that `up` and `demo` start and stop
local      up, down
doctor     what is used, and what to change
operate    status, events
queues     list, pause, resume, drain, rebuild
reembed    a collection to another embedding model
spaces     embedding spaces and their vector indexes
governor   the pace of calls to the model API
dead       dead letters
dead_stores  those of the ledger and those of the engine, as one listing
accounts   tenants, keys, usage
erase      what is to be forgotten
training   train
plot       losses as a drawing
training_compare  train compare: which rung of the ladder pays
client…    commands that speak HTTP: publish, ask, search, webhooks, collections, datasets, templates, models
demo/      the whole loop, shown
"""
