"""Data sets as records: one file each, and `registry.read_records`, which reads them all.

A new one is a file here and a line in `registry.SOURCES`:

1. write `read(rows, reading) -> Read`: a `Record` of each row, and a note, in words, on what is
   left out or made up; `row.where` (file and line) begins what an error says;
2. or `read_locality(rows, reading) -> Answers`, if its true answers may be what must stay;
3. end the file with `SOURCE = Source(name, fields, read, read_locality)`; a file is recognised by
   its fields, so no other data set may have all of them; further fields are `optional` (read) or
   `unread` (of no use here), and all others are named when a file is read;
4. name that `SOURCE` in `registry.SOURCES`: all commands then read it, as --locality too;
5. draw what the file leaves open with `random.Random(f"{name} {reading.split} {reading.seed}")`;
   a new choice is a field of `Reading`, and of `runs.options.ReadingOptions` to be an option.

Nothing of a file is dropped without a note that counts it; `notes` makes those that all files need.
What is made here, not read: `facts`, `claims` about them, `pronunciations`, `wikitext_sampling`;
`pararel` and `fact_questions` are what small bases are trained on.
"""
