"""What is done with events.

engine/    arq's worker made fast and safe
handling   the contract between the runtime and a wing
runtime    takes claimed events to their handlers
commit     writes what they did: effect, status and follow-ups in one transaction
host       a process that runs pools
heap       keeps what lives as long as the process from the garbage collector
pools      which wings a pool is made of
main       a compatibility face for stock arq
ingest/    documents -> chunks -> vectors
answer/    question -> context -> cited answer
train/     examples -> run -> evaluation -> promotion
deliver/   result -> signed webhook
"""
