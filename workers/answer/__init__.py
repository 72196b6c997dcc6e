"""A question becomes a cited answer, or an abstention: question -> passages -> evidence -> prompt -> words -> proof.

pool        opens the wing
handler     one question's way through the wing
clock       milliseconds per stage
cache       the same question again, or at the same time
gate        no evidence, no paid call
condense    a follow-up becomes a question of its own
examples    approved examples for the prompt
context     hits that touch become one, neighbours come with them
prompt      messages within a token budget
fence       passages are data
tokens      how many tokens, rather too high
writing     prompt, model, verification: a result
generate    the model's words, by the alias's model or its base
sanitize    no image, HTML or unsupported link leaves
citations   markers that prove nothing are cut out
quotes      the span of a passage that supports a claim
structured  what the model is asked for when the caller wants JSON
finishing   the model's words become a result
result      what became of a question
record      the row and the out event
"""
