"""What is done with events.

engine/    arq's worker made fast and safe
handling   the contract between the runtime and a wing
runtime    takes claimed events to their handlers and commits what they did
pools      which wings a pool is made of
main       a compatibility face for stock arq
ingest/    documents -> chunks -> vectors
answer/    question -> context -> cited answer
train/     examples -> run -> evaluation -> promotion
deliver/   result -> signed webhook
"""
