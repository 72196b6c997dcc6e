"""The ingest wing: documents come in as events, chunks with vectors go into PostgreSQL.

media       which reader a media type means, and bytes -> text
parsed      what readers hand to the chunker: blocks with heading path and page
readers/    one reader per kind of document
read        document -> Parsed, whatever it is
tokens      an estimate of tokens without a vocabulary
cut         where a text may be cut, and where it is best cut
chunk       Parsed -> chunks
child       inside the sandbox: one document per forked process, under limits
sandbox     outside of it: a pool of warm children that can be killed
prepare     document -> chunks, here or in the sandbox
diff        old chunks + new chunks -> what to keep, move, add and remove
"""
