"""The ingest wing: documents come in as events, chunks with vectors go into PostgreSQL.

pool        opens what the wing needs and names its handlers
added       `document.added`: content -> chunks -> vectors -> one transaction
deleted     `document.deleted`: a tombstone, and nothing else left
buried      what a given-up event leaves: a document that failed, with the reason
news        what became of a version, as the event that says so
version     whether a version counts; pure
store       what PostgreSQL knows of documents
write       what versions of many documents write, in few statements
content     a document's content, from the event or from its address
embed       new chunks -> vectors, many jobs in one request, each text paid for once
bisect      which of many texts a refused request was about
prepare     document -> chunks, here or in the sandbox
sandbox     a pool of warm children that can be killed
child       inside of one: a forked process per document, under limits
media       which reader a media type means, and bytes -> text
read        document -> blocks, whatever it is
readers/    one reader per kind of document
parsed      what readers hand to the chunker: blocks with heading path and page
chunk       blocks -> chunks
flow        blocks as one text, with a weight and a score for each place
cut         how good a place is for a cut
tokens      an estimate of tokens without a vocabulary
diff        old chunks + new chunks -> what to keep, move, add and remove
"""
