"""One reader per kind of document; each turns text or bytes into `Parsed` and fetches nothing.

plain     text: paragraphs
marked    Markdown: headings, code, tables
web       HTML, read as a stream
records   JSON and JSON lines: one line per value
sheet     CSV: a table
pages     PDF: text by page, headings from its outline
office    Word, PowerPoint and Excel, through the extra `office`
"""
