"""Redis streams become events: whoever can `XADD` can publish, in any language.

entry    the fields of a stream entry become an `Event`
gate     what of a batch may be entered, what is refused, what waits
bridge   a consumer group is read in batches and entered in the ledger
metrics  what a bridge counts
serve    a bridge with its ops port, until a signal
"""
