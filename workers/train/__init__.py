"""Examples become a run, a run a tuned model, and the model is promoted only when it is better.

pool          what this wing handles
examples      checks one example as OpenAI's JSONL wants it, and says where it belongs
screening     secrets and personal data that keep an example out
recorded      example.recorded
admission     examples are screened and embedded before anything is written
nearness      near duplicates, by embeddings: left out, or kept in one split
intake        an example joins its dataset, and the threshold may fire
feedback      feedback.received: a rated or corrected answer becomes a pending example
batch         training.batch_ready: a run is made and its examples are reserved
batch_file    examples that came by uri
runs          a run as the database has it
advance       training.advance: one step of a run
money         a run's money is promised
prepare       collecting, preparing, uploading
submit        submitted: one paid job, whatever crashes
own_jobs      a run's jobs, found again by their metadata
monitor       validating, queued, running
evaluate      evaluating: models answer the held-out examples
contest       what is compared: examples, models, answers
context       passages for held-out questions, the same for every model
asking        one paid call to a model
judge         a model compares two answers, in both orders
grading       what an answer is worth
verdict       the bootstrap, and whether to promote
keeper        models while they serve: rolled back when they fail, announced before they end
finish        promotion and rejection
ladder        template, few-shot, retrieval and tuned on one holdout
ending        a run's end: examples used or free again, files and jobs cleaned up
"""
